"""`session_start.sh` asks the daemon and prints its line; if the daemon is gone or hangs it prints nothing, in time."""

import asyncio
import json
import time
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from membridge.hooks.paths import BEAT_STALE
from tests.fixtures.hook_daemon import Behaviour, HookDaemon, hook_daemon
from tests.integration.claudecode.conftest import SHELLS, Scripts

INPUT = json.dumps({"session_id": "s-1", "cwd": "/work", "source": "startup", "note": "ü {"}).encode()
#: Seconds that the plugin of the tests may wait, and what starting processes may add on a loaded machine.
WAIT, SLACK = 1.0, 5.0


async def asked(
    scripts: Scripts, *arguments: str, stdin: bytes = INPUT, shell: str = "sh", **environment: str
) -> CompletedProcess[bytes]:
    def run() -> CompletedProcess[bytes]:
        return scripts.run("session_start.sh", *arguments, stdin=stdin, shell=SHELLS[shell], **environment)

    began = time.monotonic()
    done = await asyncio.to_thread(run)
    assert time.monotonic() - began < WAIT + SLACK
    assert (done.returncode, done.stderr) == (0, b"")
    return done


@pytest.mark.parametrize("shell", SHELLS)
async def test_the_daemons_line_is_the_answer_of_the_hook(scripts: Scripts, state: Path, shell: str) -> None:
    async with hook_daemon(state) as daemon:
        daemon.context = 'fresh as of 12:00 from "b\\c" — ü 😀\nsecond line'
        done = await asked(scripts, shell=shell)

        answer = json.loads(done.stdout)["hookSpecificOutput"]
        assert answer == {"hookEventName": "SessionStart", "additionalContext": daemon.context}
        (asked_for,) = daemon.asked
        assert asked_for.project is None
        assert asked_for.texts == json.loads(INPUT)
        assert not any([*daemon.paths.questions.iterdir(), *daemon.paths.answers.iterdir()])


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

        assert [asked_for.project for asked_for in daemon.asked] == [project]


async def test_a_daemon_with_nothing_to_say_prints_nothing(scripts: Scripts, state: Path) -> None:
    async with hook_daemon(state) as daemon:
        daemon.context = ""
        assert (await asked(scripts)).stdout == b""
        assert len(daemon.asked) == 1


async def ends_silently(scripts: Scripts, daemon: HookDaemon | None, questions: int, shell: str = "sh") -> None:
    assert (await asked(scripts, shell=shell)).stdout == b""
    assert daemon is None or len(daemon.asked) == questions


@pytest.mark.parametrize("shell", SHELLS)
async def test_a_daemon_that_hangs_is_given_up_in_time(scripts: Scripts, state: Path, shell: str) -> None:
    async with hook_daemon(state) as daemon:
        daemon.behaviour = Behaviour.HANGS
        await ends_silently(scripts, daemon, 1, shell)


async def test_a_question_that_no_daemon_takes_is_withdrawn(scripts: Scripts, state: Path) -> None:
    async with hook_daemon(state) as daemon:
        pass
    await ends_silently(scripts, daemon, 0)
    assert not any(daemon.paths.questions.iterdir())


async def test_a_daemon_whose_heartbeat_is_old_is_not_asked(scripts: Scripts, state: Path) -> None:
    async with hook_daemon(state) as daemon:
        daemon.beat(seconds_ago=BEAT_STALE + 1)
        await ends_silently(scripts, daemon, 0)


async def test_a_daemon_that_was_killed_is_not_noticed(scripts: Scripts, state: Path) -> None:
    async with hook_daemon(state) as daemon:
        pass
    # What a killed process leaves is there for some seconds as if it lived.
    assert daemon.paths.heartbeat.exists()
    await ends_silently(scripts, None, 0)
    assert not any(daemon.paths.questions.iterdir())


async def test_without_a_daemon_there_is_no_folder(scripts: Scripts) -> None:
    await ends_silently(scripts, None, 0)


@pytest.mark.parametrize("broken", ["no programs", "no folder", "no questions", "torn paths"])
async def test_a_broken_installation_is_not_noticed(scripts: Scripts, state: Path, broken: str) -> None:
    paths = scripts.folder / "paths.sh"
    async with hook_daemon(state):
        match broken:
            case "no programs":
                assert (await asked(scripts, PATH="/nowhere")).stdout == b""
            case "no folder":
                paths.write_text(paths.read_text().replace(f"{state}/run", f"{state}/elsewhere"))
                assert (await asked(scripts)).stdout == b""
            case "no questions":
                (state / "half").mkdir()
                (state / "half" / "hooks.heartbeat").touch()
                paths.write_text(paths.read_text().replace(f"{state}/run", f"{state}/half"))
                assert (await asked(scripts)).stdout == b""
            case _:
                paths.write_text("run='")
                assert (await asked(scripts)).stdout == b""


async def test_the_event_goes_into_the_spool_as_well(scripts: Scripts, state: Path) -> None:
    async with hook_daemon(state) as daemon:
        await asked(scripts, "--project", "boat")

        assert daemon.events() == [("membridge 1 SessionStart boat", INPUT + b"\n")]


async def test_where_the_module_has_asked_the_command_only_spools(scripts: Scripts, state: Path) -> None:
    async with hook_daemon(state) as daemon:
        assert (await asked(scripts, MEMBRIDGE_SESSION_START="s-1")).stdout == b""
        assert (len(daemon.asked), daemon.events()) == (0, [("membridge 1 SessionStart -", INPUT + b"\n")])


async def test_a_large_input_is_read_to_the_end(scripts: Scripts, state: Path) -> None:
    async with hook_daemon(state):
        await asked(scripts, stdin=b'{"x":"' + b"x" * (1 << 20))


async def test_malformed_input_is_not_noticed(scripts: Scripts, state: Path) -> None:
    async with hook_daemon(state):
        for stdin in (b"", b"{", b"\xff\x00"):
            assert (await asked(scripts, stdin=stdin, CLAUDE_PROJECT_ID="p")).stdout == b""
