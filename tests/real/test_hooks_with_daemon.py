"""Two machines with claude-mem, Claude Code and Membridge: a session starts with what the other one just learned."""

import asyncio
import signal
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from membridge.bus.connection import Bus
from membridge.embedded.nats_server import NatsServer
from membridge.hooks.paths import HookPaths, hook_paths
from membridge.testing.node_process import NodeProcess
from schemas.events import SessionEvent, SessionMoment, decode_event
from schemas.identity import canonical_id
from tests.fixtures.machines import PROJECT, command, until
from tests.fixtures.pace import pause
from tests.real.claude_session import Claude
from tests.real.fetch import ClaudeCode, fetch, fetch_claude
from tests.real.messages_api import MessagesApi, messages_api
from tests.real.test_hooks import remember
from tests.real.worker import Worker, environment_of, start_worker

pytestmark = pytest.mark.real

#: Seconds that a session start waits in these tests, and that a whole session may take then.
WAIT, MOST = 4.0, 60.0


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine with a daemon and claude-mem's worker."""

    node: NodeProcess
    worker: Worker

    @property
    def paths(self) -> HookPaths:
        """Where its hooks and its daemon meet."""
        return hook_paths(self.node.home / ".local" / "state" / "membridge")

    def claude(self, api: MessagesApi, version: ClaudeCode = ClaudeCode.NEWEST) -> Claude:
        """Return its Claude Code, with claude-mem's plugin."""
        found = Claude(fetch_claude(version), self.node.home, api)
        found.plugins.append(fetch().worker_script.parents[1])
        found.extra.update(environment_of(self.worker))
        found.work.mkdir(parents=True, exist_ok=True)
        return found


@asynccontextmanager
async def machines(tmp_path: Path, server: NatsServer, bus: Bus, names: str) -> AsyncGenerator[list[Machine]]:
    """Run machines; the first is primary."""
    extra = {"MEMBRIDGE_HOOKS_WAIT_SECONDS": str(WAIT)}
    async with AsyncExitStack() as stack:
        found: list[Machine] = []
        for name in names:
            worker = await asyncio.to_thread(stack.enter_context, start_worker(tmp_path / name))
            machine = Machine(NodeProcess(name, tmp_path / name, server.url, PROJECT, extra=extra), worker)
            await machine.node.start()
            stack.push_async_callback(machine.node.stop)
            await until(bus, machine.node, lambda status: status.running)
            await command(machine.node, "install", "hooks")
            async with asyncio.timeout(30.0):
                while not machine.paths.heartbeat.exists():
                    await pause()
            found.append(machine)
        yield found


@pytest.mark.parametrize("version", [ClaudeCode.NEWEST, ClaudeCode.WITHOUT_MODULES])
async def test_a_session_starts_with_what_another_machine_has_just_learned(
    tmp_path: Path, nats_server: NatsServer, bus: Bus, version: ClaudeCode
) -> None:
    async with machines(tmp_path, nats_server, bus, "ba") as (b, a), messages_api() as api:
        await asyncio.to_thread(remember, b.worker, "learned on the other machine")
        await command(b.node, "push")

        session = await a.claude(api, version).session("hello boat")

        assert (session.code, session.output, session.errors) == (0, "the stand-in speaks\n", "")
        line = "Membridge: this memory is up to date. It is snapshot "
        assert session.sent.count(line) == 1, session.sent[:3000]
        assert " from b." in session.sent
        # In an older version the hooks run beside each other: then nothing promises which one comes first.
        if version is ClaudeCode.NEWEST:
            assert session.sent.index(line) < session.sent.index("learned on the other machine")


async def test_the_events_of_a_session_are_published_and_its_end_pushes(
    tmp_path: Path, nats_server: NatsServer, bus: Bus
) -> None:
    async with machines(tmp_path, nats_server, bus, "a") as (a,), messages_api() as api:
        await asyncio.to_thread(remember, a.worker, "before the session")
        await command(a.node, "push")
        first = await until(bus, a.node, lambda status: status.project.head_seq > 0)
        async with bus.subscribe(f"membridge.{canonical_id(PROJECT)}.event.session.*") as heard:
            session = await a.claude(api).session("a secret plan")

            assert (session.code, session.output, session.errors) == (0, "the stand-in speaks\n", "")
            async with asyncio.timeout(MOST):
                bodies = [(await anext(heard)).body for _ in SessionMoment]
        told = [event for event in map(decode_event, bodies) if isinstance(event, SessionEvent)]
        assert [event.moment for event in told] == [*SessionMoment]
        assert len({event.session for event in told}) == 1
        assert all(b"secret plan" not in body for body in bodies)
        # claude-mem keeps the prompt as a row, which is in a snapshot when the session is over.
        await until(bus, a.node, lambda status: status.project.head_seq > first.project.head_seq, seconds=MOST)


@pytest.mark.parametrize("fault", ["killed", "hung"])
async def test_a_session_does_not_notice_that_the_daemon_is_gone_and_its_events_wait(
    tmp_path: Path, nats_server: NatsServer, bus: Bus, fault: str
) -> None:
    async with machines(tmp_path, nats_server, bus, "a") as (a,), messages_api() as api:
        assert a.node.process is not None
        async with bus.subscribe(f"membridge.{canonical_id(PROJECT)}.event.session.*") as heard:
            # Its heartbeat is fresh, its folder is there, and nothing answers any more.
            a.node.process.send_signal(signal.SIGKILL if fault == "killed" else signal.SIGSTOP)
            session = await a.claude(api).session("hello")

            assert (session.code, session.output, session.errors) == (0, "the stand-in speaks\n", "")
            assert session.seconds < MOST
            assert "Membridge:" not in session.sent
            if fault == "killed":
                await a.node.stop()
                await a.node.start()
            else:
                a.node.process.send_signal(signal.SIGCONT)
            async with asyncio.timeout(MOST):
                bodies = [(await anext(heard)).body for _ in SessionMoment]
        told = [event for event in map(decode_event, bodies) if isinstance(event, SessionEvent)]
        assert [event.moment for event in told] == [*SessionMoment]
