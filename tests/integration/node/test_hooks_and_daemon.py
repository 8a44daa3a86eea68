"""The shipped hooks and a real daemon, as a session meets them: one asks and is answered, the others are published."""

import asyncio
import json
from pathlib import Path

from membridge.aio.deadline import Deadline
from membridge.bus import jetstream
from membridge.bus.connection import Bus
from membridge.testing.node_process import NodeProcess
from schemas import streams, subjects
from schemas.events import SessionEvent, decode_event
from schemas.identity import canonical_id
from tests.fixtures.hook_daemon import state
from tests.fixtures.machines import PROJECT, SOON, MakeMachine, command, until
from tests.fixtures.pace import pause

__all__ = ["state"]

INPUT = {"session_id": "s-1", "cwd": "/work", "prompt_id": "p-1"}


async def run(machine: NodeProcess, script: str, *arguments: str, **fields: str) -> bytes:
    """Run a hook of the installed plugin as Claude Code does; return what it prints."""
    folder = machine.home / ".claude" / "skills" / "membridge"
    process = await asyncio.create_subprocess_exec(
        "/bin/sh",
        str(folder / script),
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={"PATH": machine.environment()["PATH"], "HOME": str(machine.home)},
    )
    output, _ = await process.communicate(json.dumps({**INPUT, **fields}).encode())
    assert process.returncode == 0
    return output


async def test_a_session_starts_with_the_line_of_the_daemon_and_its_events_are_published(
    make_machine: MakeMachine, bus: Bus, state: Path
) -> None:
    machine = make_machine("a", memory=True, MEMBRIDGE_STATE_DIR=str(state))
    await machine.start()
    await until(bus, machine, lambda seen: seen.project.head_seq > 0 and seen.project.unsynced == 0)
    await command(machine, "install", "hooks")
    async with asyncio.timeout(SOON):
        while not (state / "run" / "hooks.heartbeat").exists():
            await pause()

    answer = json.loads(await run(machine, "session_start.sh", source="startup"))
    said = answer["hookSpecificOutput"]["additionalContext"]
    assert said.startswith("Membridge: this memory is up to date. It is snapshot ")
    assert await run(machine, "event.sh", "UserPromptSubmit", prompt="my secret plan") == b""
    assert await run(machine, "event.sh", "Stop") == b""
    assert await run(machine, "event.sh", "SessionEnd", reason="other") == b""
    async with asyncio.timeout(SOON):
        while any((state / "spool" / "new").iterdir()):
            await pause()

    subject = subjects.fill(subjects.EVENT, project=canonical_id(PROJECT), kind="session", node="a")
    read = jetstream.read_from(bus, streams.EVENTS.name, subject, start=1, deadline=Deadline.after(SOON))
    found = [event async for message in read if isinstance(event := decode_event(message.body), SessionEvent)]
    assert [event.moment.value for event in found] == ["started", "prompted", "stopped", "ended"]
    assert {(event.session, event.prompt) for event in found} == {("s-1", None)}
    checks = (await command(machine, "doctor"))["checks"]
    assert [check["finding"] for check in checks if check["name"] == "hooks"] == ["ok"]
