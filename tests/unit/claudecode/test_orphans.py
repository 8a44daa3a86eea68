"""Which processes nobody uses: whatever leaves a doubt is kept."""

from dataclasses import replace

import pytest

from membridge.claudecode.orphans import Kind, Machine, kind_of, verdicts
from membridge.system.processes import Opened, Process

INIT, MANAGER, SHELL, OWN, MCP = 1, 50, 60, 70, 100


def process(pid: int, parent: int, *command: str, **more: object) -> Process:
    made = Process(
        pid=pid, parent=parent, name=command[0], started=pid, age=1000.0, resident=1 << 20, user=1000, command=command,
        container="", service="", namespace="pid:[1]",
    )  # fmt: skip
    return replace(made, **more)  # type: ignore[arg-type]


def machine(*extra: Process, opened: list[Opened] | None = None, peers: dict[int, int] | None = None) -> Machine:
    usual = [
        process(INIT, 0, "init"), process(MANAGER, INIT, "systemd", "--user"), process(SHELL, MANAGER, "bash"),
        process(OWN, SHELL, "python", "claude-cleanup-safe"),
    ]  # fmt: skip
    return Machine(
        processes={one.pid: one for one in [*usual, *extra]}, opened=opened or [], peers=peers or {}, own=OWN
    )


def ends(pid: int, standard_in: str, standard_out: str) -> list[Opened]:
    return [Opened(pid, 0, standard_in, writes=False), Opened(pid, 1, standard_out, writes=True)]


def kept(found: Machine, pid: int = MCP) -> str:
    return next(one.kept for one in verdicts(found, youngest=120.0) if one.process.pid == pid)


DEAD = ends(MCP, "pipe:[1]", "pipe:[2]")
SERVER = process(MCP, MANAGER, "node", "/x/mcp-server-files.js")


@pytest.mark.parametrize(
    ("command", "kind"),
    [
        ("claude -p hello", Kind.CLAUDE),
        ("/home/pi/.local/bin/claude", Kind.CLAUDE),
        ("node /usr/lib/node_modules/@anthropic-ai/claude-code/cli.js", Kind.CLAUDE),
        ("uv tool uvx --python 3.13 chroma-mcp==0.2.6 --client-type persistent", Kind.CHROMA),
        ("/x/bin/python /x/bin/chroma-mcp --client-type persistent", Kind.CHROMA),
        ("bun /home/pi/.claude/plugins/claude-mem/scripts/worker-service.cjs --daemon", Kind.BUN),
        ("bun run dev", None),
        ("npm exec @playwright/mcp@latest", Kind.MCP),
        ("python -m mcp_server_git", Kind.MCP),
        ("sh -c mcp-server-filesystem /data", Kind.MCP),
        ("node /x/mcp-server.cjs", Kind.MCP),
        ("vim notes-about-mcps.txt", None),
        ("sleep 300", None),
        ("nginx -c /etc/claude.conf", None),
    ],
)
def test_a_command_is_of_a_kind(command: str, kind: Kind | None) -> None:
    assert kind_of(tuple(command.split())) == kind


def test_without_parent_and_with_dead_ends_it_is_an_orphan() -> None:
    assert kept(machine(SERVER, opened=DEAD)) == ""
    assert kept(machine(replace(SERVER, parent=INIT), opened=DEAD)) == ""


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"parent": SHELL}, "bash (60) started it"),
        ({"container": "abc"}, "it is in a container"),
        ({"namespace": "pid:[2]"}, "it is in a container"),
        ({"namespace": ""}, "it is in a container"),
        ({"service": "my-mcp.service"}, "it belongs to my-mcp.service"),
        ({"age": 5.0}, "it is younger than 120 s"),
    ],
)
def test_it_is_kept_for_what_it_is(changed: dict[str, object], why: str) -> None:
    assert kept(machine(replace(SERVER, **changed), opened=DEAD)) == why  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("opened", "peers", "why"),
    [
        ([], {}, "its standard input is closed: it was made to run alone"),
        (ends(MCP, "/dev/null", "/dev/null"), {}, "it reads or writes /dev/null"),
        (ends(MCP, "/dev/pts/3", "/dev/pts/3"), {}, "it reads or writes /dev/pts/3"),
        (ends(MCP, "pipe:[1]", "/home/pi/log"), {}, "it reads or writes /home/pi/log"),
        ([*DEAD, Opened(SHELL, 5, "pipe:[1]", writes=True)], {}, "process 60 uses it"),
        ([*DEAD, Opened(SHELL, 5, "pipe:[2]", writes=False)], {}, "process 60 uses it"),
        (ends(MCP, "socket:[7]", "socket:[7]"), {}, "it serves a network"),
        ([*ends(MCP, "socket:[7]", "socket:[7]"), Opened(SHELL, 5, "socket:[8]", writes=True)], {7: 8},
         "process 60 uses it"),
        (ends(MCP, "socket:[7]", "socket:[7]"), {7: 8}, "process 0 uses it"),
    ],
)  # fmt: skip
def test_it_is_kept_for_what_uses_it(opened: list[Opened], peers: dict[int, int], why: str) -> None:
    assert kept(machine(SERVER, opened=opened, peers=peers)) == why


@pytest.mark.parametrize(
    ("opened", "peers"),
    [
        (ends(MCP, "socket:[7]", "socket:[9]"), {7: 0, 9: 0}),
        (ends(MCP, "/dev/pts/3 (deleted)", "/dev/pts/3 (deleted)"), {}),
        # Another reader of its input, or writer to its output, is no user.
        ([*DEAD, Opened(SHELL, 5, "pipe:[1]", writes=False), Opened(SHELL, 6, "pipe:[2]", writes=True)], {}),
    ],
)
def test_ends_that_nobody_holds_are_dead(opened: list[Opened], peers: dict[int, int]) -> None:
    assert kept(machine(SERVER, opened=opened, peers=peers)) == ""


def test_a_tree_goes_together_and_its_own_pipes_keep_it_not() -> None:
    claude = process(90, MANAGER, "claude")
    server = replace(SERVER, parent=90)
    opened = [*ends(90, "pipe:[3]", "pipe:[4]"), *DEAD, Opened(90, 7, "pipe:[1]", writes=True)]

    assert kept(machine(claude, server, opened=opened)) == ""
    assert kept(machine(claude, server, opened=opened), 90) == ""
    in_use = [*opened, Opened(SHELL, 9, "pipe:[3]", writes=True)]
    assert kept(machine(claude, server, opened=in_use), 90) == "process 60 uses it"
    assert kept(machine(claude, server, opened=in_use)) == "process 90 is in use and started it"


def test_in_a_container_without_init_a_session_on_a_terminal_keeps_its_servers() -> None:
    claude = process(90, INIT, "claude")
    server = replace(SERVER, parent=90)
    opened = [*ends(90, "/dev/pts/0", "/dev/pts/0"), *DEAD, Opened(90, 7, "pipe:[1]", writes=True)]

    assert kept(machine(claude, server, opened=opened)) == "process 90 is in use and started it"


def test_what_claude_mem_names_is_kept_with_its_children() -> None:
    parent = process(90, INIT, "uv", "tool", "uvx", "chroma-mcp")
    child = process(MCP, 90, "python", "/x/chroma-mcp")
    found = machine(parent, child, opened=[*DEAD, *ends(90, "pipe:[1]", "pipe:[2]")])

    assert (kept(found), kept(found, 90)) == ("", "")
    assert kept(replace(found, named={90})) == kept(replace(found, named={90}), 90) == "claude-mem uses it"


def test_another_users_processes_are_not_even_listed() -> None:
    assert verdicts(machine(replace(SERVER, user=0), opened=DEAD), youngest=0.0) == []


def test_where_the_program_itself_runs_is_kept() -> None:
    claude = process(SHELL, MANAGER, "claude")
    found = machine(claude, opened=ends(SHELL, "pipe:[1]", "pipe:[2]"))

    assert kept(found, SHELL) == "it is where this program runs"
