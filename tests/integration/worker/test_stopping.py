"""Stopping takes no attempt from a task: the worker hands it back while a coordinator is there to take it.

Real processes: `membridge up` with coordinator and worker, the same in two places, and a `claude` that says when it was
started and runs for as long as it is let.
"""

import asyncio
import signal
import sqlite3
import sys
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from membridge.testing.node_process import NodeProcess
from tests.fixtures.heard import PATIENCE, Heard
from tests.fixtures.machines import MakeMachine, command
from tests.fixtures.ports import free_port

CLAUDE = """\
import json, os, pathlib, signal, socket, sys
if "--version" in sys.argv:
    sys.exit(print("2.0"))
prompt = sys.stdin.read()
told = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
told.connect({address!r})
ends, held = os.pipe()
if os.fork() == 0:
    # In a group of its own it outlives the program, and says when that is gone.
    os.setsid()
    for number in (0, 1, 2, held):
        os.close(number)
    told.send(str(os.getppid()).encode())
    os.read(ends, 1)
    told.send(b"gone")
    os._exit(0)
if not pathlib.Path({answers!r}).exists():
    signal.pause()
print(json.dumps({{"result": prompt.upper(), "is_error": False, "session_id": "s", "usage": {{}}}}))
"""


@dataclass(slots=True)
class Claude:
    """A `claude` program that tells `heard` its process id when it starts, and `gone` at its end."""

    path: Path
    answers: Path
    heard: Heard

    async def began(self) -> int:
        """Wait until one is started; return its process."""
        async with asyncio.timeout(PATIENCE):
            return int(await self.heard.until(str.isdecimal))


@pytest.fixture
def claude(tmp_path: Path, heard: Heard) -> Claude:
    made = Claude(tmp_path / "claude", tmp_path / "answers", heard)
    code = CLAUDE.format(address=heard.address, answers=str(made.answers))
    made.path.write_text(f"#!{sys.executable}\n{code}", encoding="utf-8")
    made.path.chmod(0o700)
    return made


async def test_up_is_stopped_with_a_running_task_and_its_only_attempt_is_left(
    make_machine: MakeMachine, claude: Claude
) -> None:
    up = make_machine(
        "a",
        MEMBRIDGE_NATS_URL=f"nats://127.0.0.1:{free_port()}",
        MEMBRIDGE_COORDINATOR="1",
        MEMBRIDGE_WORKER="1",
        MEMBRIDGE_CLAUDE=str(claude.path),
        NOTIFY_SOCKET=claude.heard.address,
    )
    await claude.heard.start(up)
    task = (await submitted(up))["id"]
    process = await claude.began()
    await stopped(up)
    async with asyncio.timeout(PATIENCE):
        await claude.heard.until("gone")
    # systemd hears of the stop before anything of it happens.
    assert claude.heard.told == ["READY=1", str(process), "STOPPING=1", "gone"]
    assert kept_by(up, task) == ("queued", 0, 1)

    claude.answers.touch()
    await up.start("up")
    await claude.began()
    assert await output_of(up) == "HELLO"
    assert kept_by(up, task) == ("completed", 1, 1)
    await stopped(up)


async def test_a_worker_that_stops_hands_back_to_a_coordinator_elsewhere(
    make_machine: MakeMachine, claude: Claude
) -> None:
    coordinator = make_machine("coordinator", NOTIFY_SOCKET=claude.heard.address)
    b = make_machine("b", MEMBRIDGE_WORKER="1", MEMBRIDGE_CLAUDE=str(claude.path))
    await claude.heard.start(coordinator, "coordinator")
    await b.start()
    task = (await submitted(coordinator))["id"]
    await claude.began()
    await stopped(b)
    assert kept_by(coordinator, task) == ("queued", 0, 1)

    # Once more, and now no coordinator is there: the worker's next life hands it back.
    await b.start()
    await claude.began()
    await stopped(coordinator)
    await stopped(b)
    assert kept_by(coordinator, task) in {("leased", 1, 1), ("running", 1, 1)}
    note = b.home / ".local" / "state" / "membridge" / "unreturned.json"
    assert note.stat().st_mode & 0o077 == 0
    claude.answers.touch()
    await b.start()
    await coordinator.start("coordinator")
    await claude.began()
    assert await output_of(coordinator) == "HELLO"
    assert kept_by(coordinator, task) == ("completed", 1, 2)
    assert not note.exists()
    claude.heard.told.clear()
    await stopped(coordinator)
    async with asyncio.timeout(PATIENCE):
        await claude.heard.until("STOPPING=1")


async def submitted(machine: NodeProcess, *wait: str) -> dict[str, Any]:
    """Submit the task that may be tried once; said again it is the same one."""
    async with asyncio.timeout(PATIENCE):
        return await command(machine, "task", "submit", "hello", "--attempts", "1", "--key", "only", *wait)


async def output_of(machine: NodeProcess) -> str:
    """Wait until the task is over and return its output."""
    return str((await submitted(machine, "--wait"))["result"]["output"])


def kept_by(coordinator: NodeProcess, task: str) -> tuple[str, int, int]:
    """Return what the coordinator's database has of a task: its state, attempts and interruptions."""
    path = coordinator.home / ".local" / "state" / "membridge" / "tasks.db"
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        row = database.execute("SELECT status, attempts, interruptions FROM tasks WHERE id = ?", (task,)).fetchone()
    return tuple(row)


async def stopped(machine: NodeProcess) -> None:
    """End a daemon as systemd would; its end is a success."""
    assert machine.process is not None
    machine.process.send_signal(signal.SIGTERM)
    async with asyncio.timeout(PATIENCE):
        assert await machine.process.wait() == 0, machine.log.read_text(encoding="utf-8")[-3000:]
