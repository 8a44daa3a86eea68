"""`membridge claude-config` as a person and a script run it, beside no daemon at all."""

import asyncio
import json
import os
import pty
import sys

from membridge.system.pidfile import only_one
from membridge.testing.node_process import NodeProcess
from schemas.identity import canonical_id
from tests.fixtures.machines import PROJECT, MakeMachine, command


async def test_the_three_commands_with_json_and_without_a_terminal(make_machine: MakeMachine) -> None:
    a, b = make_machine("a"), make_machine("b")
    for machine in (a, b):
        (machine.home / ".claude").mkdir(parents=True)
    config = a.home / ".claude"
    (config / "CLAUDE.md").write_text("Be brief.\n")
    (config / "rules").mkdir()
    (config / "rules/token.md").write_text("fine\nexport GITHUB_TOKEN=ghp_abcdefghijklmnopqrstuvwxyz0123\n")
    (config / "hooks").mkdir()
    (config / "hooks/stop.sh").write_text("#!/bin/sh\n")
    (config / "history.jsonl").write_text("{}")

    seen = await command(a, "claude-config", "diff")
    assert {(one["path"], one["action"], one["program"]) for one in seen["changes"]} == {
        ("CLAUDE.md", "send", False), ("hooks/stop.sh", "send", True),
    }  # fmt: skip
    assert [(one["path"], one["line"]) for one in seen["stays"] if one["fault"]] == [("rules/token.md", 2)]
    assert "ghp_" not in json.dumps(seen)
    assert [one["path"] for one in seen["stays"] if not one["fault"]] == ["history.jsonl"]
    sent = await command(a, "claude-config", "push")
    assert (sent["seq"], sent["node"]) == (1, "a")

    code, output = await b.command("claude-config", "pull")
    assert (code, "--no-programs" in output, "hooks/stop.sh" in output) == (1, True, True)
    assert [*(b.home / ".claude").iterdir()] == []
    taken = await command(b, "claude-config", "pull", "--no-programs")
    assert [one["path"] for one in taken["left"]] == ["hooks/stop.sh"]
    assert [one.name for one in (b.home / ".claude").iterdir()] == ["CLAUDE.md"]
    await command(b, "claude-config", "pull", "--yes")
    assert (b.home / ".claude/hooks/stop.sh").read_text() == "#!/bin/sh\n"
    undone = await command(b, "claude-config", "pull", "--undo")
    assert undone["restored"] == ["hooks/stop.sh"]
    undone = await command(b, "claude-config", "pull", "--undo")
    assert undone["restored"] == ["CLAUDE.md"]
    assert [*(b.home / ".claude").iterdir()] == []
    code, output = await b.command("claude-config", "pull", "--undo")
    assert (code, "there is no pull to undo" in output) == (1, True)
    # What we know of it is private.
    state = b.home / ".local/state/membridge/claude-config"
    assert {oct(file.stat().st_mode & 0o777) for file in state.rglob("*.zst")} <= {"0o600"}


async def at_a_terminal(machine: NodeProcess, answer: bytes) -> tuple[int, str]:
    """Run a pull whose standard input is a terminal, and type one answer."""
    terminal, theirs = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "membridge.cli.main", "claude-config", "pull"),
        stdin=theirs,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=machine.environment(),
    )
    os.close(theirs)
    os.write(terminal, answer)
    output, _ = await process.communicate()
    os.close(terminal)
    return process.returncode or 0, output.decode()


async def test_a_person_is_asked_before_programs_come(make_machine: MakeMachine) -> None:
    a, b = make_machine("a"), make_machine("b")
    for machine in (a, b):
        (machine.home / ".claude").mkdir(parents=True)
    (a.home / ".claude/CLAUDE.md").write_text("text\n")
    (a.home / ".claude/bin").mkdir()
    (a.home / ".claude/bin/tool").write_text("#!/bin/sh\n")
    await command(a, "claude-config", "push")

    code, output = await at_a_terminal(b, b"n\n")
    assert (code, "they run code on this machine" in output, "bin/tool" in output) == (0, True, True), output
    assert "not taken: bin/tool: it runs code, and was not taken" in output
    assert [one.name for one in (b.home / ".claude").iterdir()] == ["CLAUDE.md"]
    code, output = await at_a_terminal(b, b"y\n")
    assert (code, (b.home / ".claude/bin/tool").exists()) == (0, True), output


async def test_a_secret_that_is_none_is_sent_when_it_is_allowed(make_machine: MakeMachine) -> None:
    a = make_machine("a")
    (a.home / ".claude").mkdir(parents=True)
    (a.home / ".claude/CLAUDE.md").write_text("The example: API_KEY=abcdef123456\n")

    code, output = await a.command("claude-config", "push")
    assert (code, "refused: CLAUDE.md, line 1: it seems to hold a value for API_KEY" in output) == (0, True), output
    assert "--allow FILE" in output
    sent = await command(a, "claude-config", "push", "--allow", "CLAUDE.md")
    assert [one["path"] for one in sent["changes"]] == ["CLAUDE.md"]
    # What is shared already is not refused again.
    assert (await command(a, "claude-config", "diff"))["stays"] == []


async def test_a_machine_without_claude_code_is_told_so(make_machine: MakeMachine) -> None:
    code, output = await make_machine("a").command("claude-config")

    assert (code, "Claude Code has no configuration here" in output) == (1, True)


async def test_another_folder_and_one_command_at_a_time(make_machine: MakeMachine) -> None:
    a = make_machine("a")
    folder = a.home / "elsewhere"
    folder.mkdir(parents=True)
    a.extra = {"CLAUDE_CONFIG_DIR": str(folder)}
    (folder / "CLAUDE.md").write_text("one\n")
    (folder / "hooks").mkdir()
    (folder / "hooks/stop.sh").write_text(f"#!/bin/sh\ncat {folder}/CLAUDE.md\n")
    state = a.home / ".local/state/membridge/claude-config" / canonical_id(PROJECT)
    with only_one(state, "claude-config"):
        code, output = await a.command("claude-config", "push")
        assert (code, "`membridge claude-config` runs here already" in output) == (1, True), output
    await command(a, "claude-config", "push")

    b = make_machine("b")
    (b.home / ".claude").mkdir(parents=True)
    await command(b, "claude-config", "pull", "--yes")
    hook = (b.home / ".claude/hooks/stop.sh").read_text()
    assert hook == "#!/bin/sh\ncat ${CLAUDE_CONFIG_DIR:-$HOME/.claude}/CLAUDE.md\n"


async def test_an_alias_needs_a_folder_and_the_memory(make_machine: MakeMachine) -> None:
    a = make_machine("a")
    (a.home / ".claude").mkdir(parents=True)
    for given, said in (
        (("--alias", "notes=/"), "--alias is for --memory"),
        (("--memory", "--alias", "notes=/nowhere"), "is not NAME=FOLDER"),
        (("--memory", "--alias", "a/b=/"), "is not NAME=FOLDER"),
        (("--memory", "--alias", "notes"), "is not NAME=FOLDER"),
    ):
        code, output = await a.command("claude-config", "diff", *given)
        assert (code, said in output) == (1, True), output
    code, _ = await a.command("claude-config", "diff", "--memory", "--alias", f"notes={a.home}")
    assert code == 0
