"""Electors for tests: each node on a connection of its own, so that one can be killed like a process."""

import asyncio
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from membridge.aio.deadline import Deadline
from membridge.bus.connection import Bus, connect
from membridge.bus.options import BusOptions, Pace
from membridge.leadership.elector import Election, Elector, ElectorOptions
from membridge.leadership.rules import Freshness
from membridge.leadership.view import LeadershipView
from membridge.system.boottime import boottime
from schemas.identity import NodeId, canonical_id
from schemas.leadership import Role

PROJECT = canonical_id("led")
TTL = 1.5
#: What a machine that is busy with other tests may add to any time that is measured here.
SLACK = 0.7
#: Reconnects at once when the server is back, and bears with one that hangs for longer than a lease.
PATIENT = Pace(connect=2.0, ping_every=5.0, retry_first=0.01, retry_most=0.1)
EMPTY = Freshness(0, 0, 0, 0, 0)


@dataclass(slots=True)
class Candidate:
    """A elector, how its node stands, and the epochs it was asked to flush under."""

    bus: Bus
    freshness: Freshness = EMPTY
    #: Seconds that this node's clock is precedence: a suspend, as the clock that runs through it shows it.
    offset: float = 0.0
    flushed: list[int] = field(default_factory=list)
    #: Set while a flush may end; cleared, a flush takes as long as its deadline allows.
    flowing: asyncio.Event = field(default_factory=asyncio.Event)
    _elector: Elector | None = None
    _task: "asyncio.Task[None] | None" = None

    @property
    def elector(self) -> Elector:
        assert self._elector is not None
        return self._elector

    @property
    def leads(self) -> bool:
        return self.elector.view().role is Role.PRIMARY

    def start(self, group: asyncio.TaskGroup, options: ElectorOptions, name: str) -> asyncio.Event:
        started = asyncio.Event()
        self.flowing.set()
        self._elector = Elector(
            self.bus, Election(PROJECT, "led", NodeId(name)), options=options, freshness=self._stands, flush=self._flush
        )
        self._task = group.create_task(self._elector.run(started.set), name=f"elector {name}")
        return started

    async def until(self, role: Role, *, seconds: float = 4 * TTL) -> float:
        """Wait for the role; return the seconds it took."""
        began = asyncio.get_running_loop().time()
        async with asyncio.timeout(seconds):
            view = self.elector.view()
            while view.role is not role:
                view = await self.elector.changed(view)
        return asyncio.get_running_loop().time() - began

    async def until_it_sees(self, leader: str | None) -> LeadershipView:
        """Wait until this node knows that `leader` leads."""
        async with asyncio.timeout(4 * TTL):
            view = self.elector.view()
            while view.leader != leader:
                view = await self.elector.changed(view)
        return view

    async def stays(self, role: Role, *, seconds: float) -> None:
        """Fail if the role changes within `seconds`."""
        view = self.elector.view()
        assert view.role is role
        try:
            async with asyncio.timeout(seconds):
                while view.role is role:
                    view = await self.elector.changed(view)
        except TimeoutError:
            return
        raise AssertionError(f"{self.elector.node} became {view.role}")

    async def kill(self) -> None:
        """End without another word to the server, as a killed process does."""
        await self.bus.close()
        await self.stop()

    async def stop(self) -> None:
        """Stop as a process that is asked to."""
        assert self._task is not None
        self._task.cancel()
        await asyncio.wait({self._task})

    async def _stands(self) -> Freshness:
        return self.freshness

    async def _flush(self, deadline: Deadline) -> None:
        async with deadline.scope("flush"):
            await self.flowing.wait()
        self.flushed.append(self.elector.epoch_for_commit())


@asynccontextmanager
async def candidate(
    url: str, name: str, *, stands: Freshness = EMPTY, ttl: float = TTL, **options: object
) -> AsyncGenerator[Candidate]:
    """Run a elector on its own connection during the body."""
    async with connect(BusOptions(urls=(url,), name=name, pace=PATIENT), deadline=soon()) as bus:
        made = Candidate(bus, stands)
        given = {"lease_seconds": ttl, "grace_seconds": 0.3, **options}
        async with asyncio.TaskGroup() as group:
            started = made.start(group, ElectorOptions(now=lambda: boottime() + made.offset, **given), name)  # type: ignore[arg-type]
            await started.wait()
            try:
                yield made
            finally:
                await made.stop()


@dataclass(slots=True)
class History:
    """Who led under which epoch, in the order in which it came about; two at once are noticed."""

    timing: list[tuple[int, str]] = field(default_factory=list)
    at_once: list[set[str]] = field(default_factory=list)
    _watched: dict[str, Candidate] = field(default_factory=dict)

    async def record(self, candidate: Candidate) -> None:
        """Record what this node shows until cancelled."""
        self._watched[candidate.elector.node] = candidate
        view = candidate.elector.view()
        while True:
            self.look()
            view = await candidate.elector.changed(view)

    def look(self) -> None:
        """Take down who leads now."""
        leading = {name: node.elector.view() for name, node in self._watched.items() if node.leads}
        if len(leading) > 1:
            self.at_once.append(set(leading))
        for name, view in leading.items():
            if (view.epoch, name) not in self.timing:
                self.timing.append((view.epoch, name))

    def check(self) -> None:
        """One primary at a time, one node for each epoch, epochs in order."""
        assert self.at_once == []
        epochs = [epoch for epoch, _ in self.timing]
        assert epochs == sorted(set(epochs))


def leaders(nodes: Iterable[Candidate]) -> list[str]:
    """Return the nodes that believe to lead."""
    return [node.elector.node for node in nodes if node.leads]


def soon() -> Deadline:
    return Deadline.after(10.0)
