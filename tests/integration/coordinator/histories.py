"""A runtime on a real database, tenure after tenure, with scripted workers; and its invariants."""

import asyncio
import random
from collections.abc import Collection, Sequence

from membridge.errors import FencedError, MembridgeError
from schemas.leases import Accepted, LeaseClaim, Order, Report
from schemas.results import Metrics, ResultStatus
from schemas.tasks import Task, TaskSpec, TaskStatus
from schemas.workers import Capabilities, Worker, WorkerStatus
from services.coordinator.machine import LIVE
from services.coordinator.runtime import Limits, Runtime
from services.coordinator.store.epoch import begin_tenure, group_commit_of
from services.coordinator.store.queries import Queries
from services.coordinator.workers import Workers
from services.database.engine import Engine
from services.database.group_commit import GroupCommit
from tests.fixtures.idle_port import IdlePort
from tests.fixtures.pace import pause

#: Leases that end while a test waits.
SHORT = Limits(lease_seconds=1, margin_seconds=0)


class AcceptingPort(IdlePort):
    """Workers that accept every order; the history reports for them."""

    def __init__(self) -> None:
        self.orders: list[Order] = []
        self.arrived = asyncio.Event()

    async def send(self, order: Order) -> Accepted:
        self.orders.append(order)
        self.arrived.set()
        return Accepted(accepted=True)


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
        self.runtime: Runtime | None = None
        self._group_commit: asyncio.Task[None] | None = None
        self.tasks: list[Task] = []
        #: Results that were accepted, by task.
        self.accepted: dict[str, list[str]] = {}

    async def begin(self, kept: Collection[str] = ()) -> Runtime:
        """Begin a tenure; `kept` are the leases that are still in KV."""
        group_commit = group_commit_of(self.engine, await begin_tenure(self.engine))
        self._group_commit = self._group.create_task(_run(group_commit))
        workers = Workers(await self.queries.known_workers())
        self.runtime = Runtime(self._group, group_commit, self.queries, workers, self.port, self._limits)
        await self.runtime.load({}, kept)
        for name in ("w1", "w2"):
            self.hear(name)
        return self.runtime

    def hear(self, name: str, labels: Sequence[str] = ()) -> None:
        """Let a worker say that it is there."""
        assert self.runtime is not None
        capabilities = Capabilities(claude_cli=True, max_concurrency=2, labels=list(labels))
        self.runtime.hear(Worker(id=name, node_id=name, status=WorkerStatus.ONLINE, capabilities=capabilities))

    async def agree(self) -> None:
        """Wait until the live tasks agree with the database; fail when they never do."""
        try:
            async with asyncio.timeout(10.0):
                while (apart := await self._apart()) is not None:
                    # Changes that nobody waits for become durable by themselves.
                    await pause()
        except TimeoutError:
            apart = await self._apart()
        assert apart is None, apart

    async def _apart(self) -> str | None:
        """Return in what the live tasks and the database differ."""
        assert self.runtime is not None
        rows = [task for _, task in await self.queries.live([*LIVE], after=0, limit=10_000)]
        stored = {task.id: (task.status, task.attempts, task.interruptions, task.lease_id) for task in rows}
        leases = {lease.id for lease in await self.queries.active_leases()}
        live_tasks = self.runtime.live_tasks
        believed = {
            one.id: (one.status, one.attempts, one.interruptions, one.lease_id) for one in live_tasks.tasks.values()
        }
        if (stored, leases) == (believed, set(live_tasks.leases)):
            return None
        return f"stored {stored} under {leases}, believed {believed} under {set(live_tasks.leases)}"

    async def kill(self) -> None:
        """End the tenure as SIGKILL would: nothing more is written."""
        assert self._group_commit is not None
        assert self.runtime is not None
        self.runtime.close()
        self._group_commit.cancel()
        await asyncio.wait({self._group_commit})

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
        live = runtime.live_tasks.leases.get(order.lease.id)
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


async def _run(group_commit: GroupCommit) -> None:
    try:
        await group_commit.run(lambda: None)
    except MembridgeError:
        return
