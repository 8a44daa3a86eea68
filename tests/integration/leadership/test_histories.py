"""Many timing with everything that ends one: at each moment one primary, for each epoch one node, epochs in order."""

import asyncio
import os
import random
import signal
import time
from contextlib import AsyncExitStack
from statistics import median

from membridge.bus.connection import Bus
from membridge.bus.kv import Kv, open_bucket
from membridge.embedded.nats_server import NatsServer
from schemas import buckets
from schemas.identity import NodeId
from schemas.leadership import Policy, Role
from schemas.node import NodePresence, ProjectPresence
from tests.integration.leadership.candidates import PROJECT, SLACK, TTL, Candidate, History, candidate, leaders, soon

NAMES = ("a", "b", "c")
#: Planned changes, and rounds of timing that end badly. docs/faults.md says how to make thousands of them.
PLANNED, ROUNDS = int(os.environ.get("PLANNED_TERMS", "30")), int(os.environ.get("BAD_ROUNDS", "1"))
BADLY = ("kill", "suspend", "stop", "hang", "resign", "kill", "select")


class Machines:
    """Nodes that come and go, and what they showed."""

    def __init__(self, url: str, nodes: Kv[NodePresence], group: asyncio.TaskGroup, stack: AsyncExitStack) -> None:
        self.history = History()
        self.running: dict[str, Candidate] = {}
        self._url, self._nodes, self._group, self._stack = url, nodes, group, stack
        self._recorders: dict[str, asyncio.Task[None]] = {}

    async def start(self, name: str) -> None:
        started = await self._stack.enter_async_context(
            candidate(self._url, name, policy=Policy.AUTO, grace_seconds=0.0)
        )
        self.running[name] = started
        self._recorders[name] = self._group.create_task(self.history.record(started))

    async def tell(self) -> None:
        """Let everybody know who is there, as daemons do all the time."""
        for name in self.running:
            project = ProjectPresence(project=PROJECT, name="led", role=Role.SECONDARY)
            there = NodePresence(node=NodeId(name), version="0", python="", os="", arch="", projects=[project])
            await self._nodes.put(name, there, deadline=soon())

    async def end(self, name: str, *, killed: bool) -> None:
        self._recorders.pop(name).cancel()
        ended = self.running.pop(name)
        await (ended.kill() if killed else ended.stop())

    async def primary(self) -> str:
        """Wait until a node leads; return it."""
        async with asyncio.timeout(4 * TTL):
            while not (found := leaders(self.running.values())):
                waiting = [
                    self._group.create_task(node.elector.changed(node.elector.view())) for node in self.running.values()
                ]
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for task in waiting:
                    task.cancel()
        return found[0]

    def close(self) -> None:
        for recorder in self._recorders.values():
            recorder.cancel()


async def test_many_planned_changes(nats_url: str, bus: Bus) -> None:
    nodes = await open_bucket(bus, buckets.NODES, replicas=1, deadline=soon())
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
        machines = Machines(nats_url, nodes, group, stack)
        for name in NAMES:
            await machines.start(name)
        await machines.primary()
        for turn in range(PLANNED):
            await machines.tell()
            asked, wanted = machines.running[NAMES[turn % 3]], machines.running[NAMES[(turn * 2 + 1) % 3]]
            await asked.elector.select(wanted.elector.node, policy=None, issued_by="test", deadline=soon())
            await wanted.until(Role.PRIMARY)
            machines.history.look()
        machines.close()
    machines.history.check()
    assert len(machines.history.timing) > 0.6 * PLANNED


async def test_many_terms_that_end_badly(nats_url: str, nats_server: NatsServer, bus: Bus) -> None:
    nodes = await open_bucket(bus, buckets.NODES, replicas=1, deadline=soon())
    chance = random.Random(20)
    after: dict[str, list[float]] = {"kill": [], "stop": []}
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
        machines = Machines(nats_url, nodes, group, stack)
        for name in NAMES:
            await machines.start(name)
        for what in BADLY * ROUNDS:
            name = await machines.primary()
            await machines.tell()
            node = machines.running[name]
            match what:
                case "kill" | "stop":
                    began = time.monotonic()
                    await machines.end(name, killed=what == "kill")
                    await machines.primary()
                    after[what].append(time.monotonic() - began)
                    await machines.start(name)
                case "suspend":
                    node.offset += TTL
                case "resign":
                    await node.elector.resign(deadline=soon())
                case "hang":
                    os.kill(nats_server.pid, signal.SIGSTOP)
                    try:
                        await node.until(Role.SECONDARY)
                    finally:
                        os.kill(nats_server.pid, signal.SIGCONT)
                case _:
                    other = machines.running[chance.choice([other for other in NAMES if other != name])]
                    await node.elector.select(other.elector.node, policy=None, issued_by="", deadline=soon())
        await machines.primary()
        machines.history.look()
        machines.close()
    machines.history.check()
    assert len(machines.history.timing) >= 6 * ROUNDS
    assert max(after["kill"]) < TTL + 1.0 + SLACK
    for what, times in after.items():
        print(f"{what}: {len(times)} take-overs, median {median(times):.2f} s, worst {max(times):.2f} s")  # noqa: T201
    print(f"{len(machines.history.timing)} timing")  # noqa: T201 - shown with -s
