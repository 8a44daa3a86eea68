"""`session_start.sh` asks the daemon and prints its line; if the daemon is gone or hangs it prints nothing, in time."""

import asyncio
import json
import time
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from membridge.hooks.paths import BEAT_STALE
from tests.fixtures.hook_daemon import Behaviour, HookDaemon, hook_daemon
from tests.integration.claudecode.conftest import Scripts

INPUT = json.dumps({"session_id": "s-1", "cwd": "/work", "source": "startup", "note": "ü {"}).encode()
#: Seconds that the plugin of the tests may wait, and what starting processes may add on a loaded machine.
WAIT, SLACK = 1.0, 5.0


async def asked(scripts: Scripts, *arguments: str, stdin: bytes = INPUT, **environment: str) -> CompletedProcess[bytes]:
    def run() -> CompletedProcess[bytes]:
        return scripts.run("session_start.sh", *arguments, stdin=stdin, **environment)

    began = time.monotonic()
    done = await asyncio.to_thread(run)
    assert time.monotonic() - began < WAIT + SLACK
    assert (done.returncode, done.stderr) == (0, b"")
    return done


async def test_the_daemons_line_is_the_answer_of_the_hook(scripts: Scripts, state: Path) -> None:
    async with hook_daemon(state) as daemon:
        daemon.context = 'fresh as of 12:00 from "b\\c" — ü 😀\nsecond line'
        done = await asked(scripts)

        answer = json.loads(done.stdout)["hookSpecificOutput"]
        assert answer == {"hookEventName": "SessionStart", "additionalContext": daemon.context}
        assert daemon.lines == ["POST /session-start HTTP/1.1"]
        assert daemon.asked == [json.loads(INPUT)]


@pytest.mark.parametrize(
    ("arguments", "environment", "project"),
    [
        (("--project", 'boat "plans"'), {"CLAUDE_PROJECT_ID": "other"}, 'boat "plans"'),
        ((), {"CLAUDE_PROJECT_ID": "other"}, "other"),
    ],
)
async def test_the_project_goes_along(
    scripts: Scripts, state: Path, arguments: tuple[str, ...], environment: dict[str, str], project: str
) -> None:
    async with hook_daemon(state) as daemon:
        await asked(scripts, *arguments, **environment)

        assert daemon.asked == [{**json.loads(INPUT), "project": project}]


@pytest.mark.parametrize("context", [None, ""])
async def test_a_daemon_with_nothing_to_say_prints_nothing(scripts: Scripts, state: Path, context: str | None) -> None:
    async with hook_daemon(state) as daemon:
        daemon.context = context
        assert (await asked(scripts)).stdout == b""
        assert len(daemon.asked) == 1


async def ends_silently(scripts: Scripts, daemon: HookDaemon | None, requests: int) -> None:
    assert (await asked(scripts)).stdout == b""
    assert daemon is None or len(daemon.asked) == requests


@pytest.mark.parametrize("behaviour", [Behaviour.HANGS, Behaviour.CLOSES, Behaviour.FAILS])
async def test_a_daemon_that_fails_is_not_noticed(scripts: Scripts, state: Path, behaviour: Behaviour) -> None:
    async with hook_daemon(state) as daemon:
        daemon.behaviour = behaviour
        await ends_silently(scripts, daemon, 1)


async def test_a_daemon_whose_heartbeat_is_old_is_not_asked(scripts: Scripts, state: Path) -> None:
    async with hook_daemon(state) as daemon:
        daemon.beat(seconds_ago=BEAT_STALE + 1)
        await ends_silently(scripts, daemon, 0)


async def test_a_daemon_that_was_killed_is_not_noticed(scripts: Scripts, state: Path) -> None:
    async with hook_daemon(state) as daemon:
        pass
    # The socket of a killed process stays, and nothing accepts on it.
    assert daemon.paths.heartbeat.exists()
    await ends_silently(scripts, None, 0)


async def test_without_a_daemon_there_is_no_socket(scripts: Scripts) -> None:
    await ends_silently(scripts, None, 0)


@pytest.mark.parametrize("broken", ["no interpreter", "no script", "torn paths"])
async def test_a_broken_installation_is_not_noticed(scripts: Scripts, state: Path, broken: str) -> None:
    paths = scripts.folder / "paths.sh"
    async with hook_daemon(state):
        match broken:
            case "no interpreter":
                paths.write_text(paths.read_text().replace("python=", "python=/nowhere"))
                assert (await asked(scripts, PATH="/nowhere")).stdout == b""
            case "no script":
                (scripts.folder / "session_start.py").unlink()
                assert (await asked(scripts)).stdout == b""
            case _:
                paths.write_text("python='")
                assert (await asked(scripts)).stdout == b""


async def test_the_event_goes_into_the_spool_as_well(scripts: Scripts, state: Path) -> None:
    async with hook_daemon(state) as daemon:
        await asked(scripts, "--project", "boat")

        assert daemon.events() == [("membridge 1 SessionStart boat", INPUT)]


async def test_the_module_asks_and_the_command_only_spools(scripts: Scripts, state: Path) -> None:
    async with hook_daemon(state) as daemon:
        assert (await asked(scripts, MEMBRIDGE_SESSION_START="ask")).stdout != b""
        assert (len(daemon.asked), daemon.events()) == (1, [])

        assert (await asked(scripts, MEMBRIDGE_SESSION_START="s-1")).stdout == b""
        assert (len(daemon.asked), daemon.events()) == (1, [("membridge 1 SessionStart -", INPUT)])


async def test_a_large_input_is_read_to_the_end(scripts: Scripts, state: Path) -> None:
    async with hook_daemon(state):
        await asked(scripts, stdin=b'{"x":"' + b"x" * (1 << 20))


async def test_a_path_that_is_too_long_for_a_socket_is_followed(scripts: Scripts, state: Path, tmp_path: Path) -> None:
    long = tmp_path / ("long" * 30)
    long.mkdir()
    (long / "run").symlink_to(state / "run")
    paths = scripts.folder / "paths.sh"
    paths.write_text(paths.read_text().replace(f"{state}/run", f"{long}/run"))

    async with hook_daemon(state):
        assert (await asked(scripts)).stdout != b""


async def test_malformed_input_is_not_noticed(scripts: Scripts, state: Path) -> None:
    async with hook_daemon(state):
        for stdin in (b"", b"{", b"\xff\x00"):
            assert (await asked(scripts, stdin=stdin, CLAUDE_PROJECT_ID="p")).stdout == b""
