"""A runtime on a real database, tenure after tenure, with scripted workers; and its invariants."""

import asyncio
import random
from collections.abc import Awaitable, Collection, Sequence
from contextlib import suppress
from typing import TypeVar

from msgspec.structs import replace

from membridge.errors import FencedError, MembridgeError, NotFoundError
from schemas.leases import Accepted, LeaseClaim, Order, Report
from schemas.results import Metrics, ResultStatus
from schemas.tasks import Task, TaskSpec, TaskStatus
from schemas.workers import Capabilities, Worker, WorkerStatus
from services.coordinator.engine.events import Event, Expired, Heard
from services.coordinator.engine.machine import LIVE
from services.coordinator.engine.state import Limits, State
from services.coordinator.runtime import Runtime
from services.coordinator.store.epoch import begin_tenure, group_commit_of
from services.coordinator.store.queries import Queries
from services.database.engine import Engine
from services.database.group_commit import GroupCommit
from tests.fixtures.idle_port import IdlePort
from tests.fixtures.pace import pause

R = TypeVar("R")

#: Leases that end while a test waits.
SHORT = Limits(lease_seconds=1, margin_seconds=0)


async def answered(asked: Awaitable[R]) -> R:
    """Return an answer: a future of it as a coroutine, for a task."""
    return await asked


class AcceptingPort(IdlePort):
    """Workers that accept every order; the history reports for them."""

    def __init__(self) -> None:
        self.orders: list[Order] = []
        self.arrived = asyncio.Event()

    async def send(self, worker_id: str, orders: Sequence[Order]) -> Sequence[Accepted]:
        self.orders += orders
        self.arrived.set()
        return await super().send(worker_id, orders)


class History:
    """One database, its tenures one after another, and the results that were accepted."""

    def __init__(
        self,
        engine: Engine,
        port: AcceptingPort,
        group: asyncio.TaskGroup,
        chance: random.Random,
        limits: Limits = SHORT,
    ) -> None:
        self.engine, self.port, self.chance = engine, port, chance
        self.queries: Queries = Queries(engine)
        self._group, self._limits = group, limits
        self._runtime: Runtime | None = None
        self._group_commit: GroupCommit | None = None
        self.tenure: asyncio.Task[None] | None = None
        #: What ended the last tenure.
        self.ended_by: list[Exception] = []
        self.tasks: list[Task] = []
        #: Results that were accepted, by task.
        self.accepted: dict[str, list[str]] = {}

    @property
    def runtime(self) -> Runtime:
        """The runtime of the last tenure."""
        assert self._runtime is not None
        return self._runtime

    @property
    def group_commit(self) -> GroupCommit:
        """The group commit of the last tenure."""
        assert self._group_commit is not None
        return self._group_commit

    async def begin(self, kept: Collection[str] = ()) -> Runtime:
        """Begin a tenure; `kept` are the leases that are still in KV."""
        begun = asyncio.Event()
        self.tenure = self._group.create_task(self._schedule(await begin_tenure(self.engine), kept, begun))
        waiting = self._group.create_task(begun.wait())
        await asyncio.wait({self.tenure, waiting}, return_when=asyncio.FIRST_COMPLETED)
        assert begun.is_set(), self.ended_by
        for name in ("w1", "w2"):
            self.hear(name)
        await self.applied()
        return self.runtime

    async def _schedule(self, epoch: int, kept: Collection[str], begun: asyncio.Event) -> None:
        self.ended_by = []
        try:
            async with group_commit_of(self.engine, epoch) as group_commit, asyncio.TaskGroup() as group:
                runtime = Runtime(group, group_commit, self.queries, self.port, self._limits)
                self._group_commit, self._runtime = group_commit, runtime
                try:
                    await runtime.load(kept)
                    begun.set()
                    await runtime.run()
                finally:
                    runtime.close()
        except* MembridgeError as errors:
            self.ended_by += errors.exceptions

    async def state(self) -> State:
        """Return the state, to be read before the next await."""
        return await self.runtime.settled()

    async def applied(self, event: Event | None = None) -> State:
        """Wait until an event and all before it are applied; return the state."""
        if event is not None:
            self.runtime.post(event)
        # Events are applied in their order: once one is answered, so are those before it.
        with suppress(NotFoundError):
            await self.runtime.drain("nobody", drained=True, actor="test")
        return await self.state()

    async def expire(self, lease_id: str) -> None:
        """Let the time of a lease be over now."""
        state = await self.state()
        if (held := state.leases.get(lease_id)) is not None:
            state.leases[lease_id] = replace(held, until=0.0)
        await self.applied(Expired(lease_id))

    def hear(self, name: str, labels: Sequence[str] = ()) -> None:
        """Let a worker say that it is there."""
        capabilities = Capabilities(claude_cli=True, max_concurrency=2, labels=list(labels))
        worker = Worker(id=name, node_id=name, status=WorkerStatus.ONLINE, capabilities=capabilities)
        self.runtime.post(Heard(worker))

    async def agree(self) -> None:
        """Wait until the state agrees with the database; fail when it never does."""
        try:
            async with asyncio.timeout(10.0):
                while (apart := await self._apart()) is not None:
                    # Changes that nobody waits for become durable by themselves.
                    await pause()
        except TimeoutError:
            apart = await self._apart()
        assert apart is None, apart

    async def _apart(self) -> str | None:
        """Return in what the state and the database differ."""
        rows = [task for _, task in await self.queries.live([*LIVE], after=0, limit=10_000)]
        stored = {task.id: (task.status, task.attempts, task.interruptions, task.lease_id) for task in rows}
        leases = {lease.id for lease in await self.queries.active_leases()}
        state = await self.state()
        believed = {one.id: (one.status, one.attempts, one.interruptions, one.lease_id) for one in state.tasks.values()}
        if (stored, leases) == (believed, set(state.leases)):
            return None
        return f"stored {stored} under {leases}, believed {believed} under {set(state.leases)}"

    async def kill(self) -> None:
        """End the tenure as SIGKILL would: nothing more is written."""
        assert self.tenure is not None
        self.tenure.cancel()
        await asyncio.wait({self.tenure})

    async def step(self, runtime: Runtime) -> None:
        """Do something; what is refused must be refused for a reason and change nothing."""
        what = self.chance.choice(
            ["submit", "submit", "report", "report", "report", "back", "cancel", "requeue", "beat"]
        )
        if what == "submit" or not self.tasks:
            spec = TaskSpec(
                context_id=self.chance.choice("abc"), agent_slug="x", prompt="p", priority=self.chance.randint(0, 9),
                max_attempts=self.chance.randint(1, 3),
            )  # fmt: skip
            self.tasks.append(await runtime.submit(spec, actor="test"))
            return
        task = self.chance.choice(self.tasks)
        try:
            if what == "cancel" and self.chance.random() < 0.3:
                await runtime.cancel(task.id, reason="", actor="test")
            elif what == "requeue":
                await runtime.requeue(task.id, actor="test")
                self.accepted.pop(task.id, None)
            elif self.port.orders:
                await self._speak(runtime, what, self.chance.choice(self.port.orders[-6:]))
        except (MembridgeError, FencedError):
            pass

    async def _speak(self, runtime: Runtime, what: str, order: Order) -> None:
        claim = LeaseClaim(lease_id=order.lease.id, task_id=order.task.id, worker_id=order.lease.worker_id)
        live = (await runtime.settled()).leases.get(order.lease.id)
        if what == "beat":
            await runtime.heartbeat(claim)
        elif what == "back":
            await runtime.hand_back(claim)
        else:
            success = self.chance.random() < 0.5
            report = Report(
                lease_id=claim.lease_id, task_id=claim.task_id, worker_id=claim.worker_id,
                status=ResultStatus.SUCCESS if success else ResultStatus.ERROR, output="o" if success else None,
                error_message=None if success else "e", metrics=Metrics(duration_ms=1),
            )  # fmt: skip
            await runtime.report(report)
            assert live is not None, "a result under a lease that was not live was accepted"
            if success:
                self.accepted.setdefault(claim.task_id, []).append(claim.lease_id)
        assert live is not None

    async def check(self) -> None:
        """The database holds what a task runtime promises."""
        leases = await self.queries.active_leases()
        holders = [lease.task_id for lease in leases]
        assert len(holders) == len(set(holders)), "a task has two live leases"
        for submitted in self.tasks:
            task = await self.queries.task(submitted.id)
            assert task.attempts <= task.max_attempts
            ends = self.accepted.get(task.id, [])
            assert len(ends) <= 1, "a task was completed twice"
            if task.status is TaskStatus.COMPLETED:
                result = await self.queries.result(task.id)
                assert result is not None
                assert result.status is ResultStatus.SUCCESS
            if task.status in {TaskStatus.LEASED, TaskStatus.RUNNING}:
                assert task.id in holders
            else:
                assert task.id not in holders
        contexts = [lease.context_id for lease in leases]
        assert len(contexts) == len(set(contexts)), "two tasks of one context run at once"
