"""The task's state machine against a real runtime on both databases, in every order that hypothesis can think of.

The model says what an event does to a task; the database is what is looked at. Leases do not end by themselves here.
"""

import asyncio
import random
import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import ClassVar, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from membridge.aio.deadline import Deadline
from membridge.errors import LeaseLostError
from schemas.leases import Lease, LeaseClaim, Order, Report
from schemas.results import Metrics, ResultStatus
from schemas.tasks import Task, TaskSpec, TasksRequest, TaskStatus
from services.coordinator.engine.events import Believed
from services.coordinator.engine.machine import WrongStateError
from services.coordinator.engine.state import Limits
from services.coordinator.engine.workers import given_to
from services.coordinator.runtime import Runtime
from services.coordinator.store.migrations import MIGRATIONS
from services.database.engine import open_engine, parse_url
from tests.fixtures.tasks import create_database
from tests.integration.coordinator.histories import AcceptingPort, History

T = TypeVar("T")

QUEUED, LEASED, RUNNING = TaskStatus.QUEUED, TaskStatus.LEASED, TaskStatus.RUNNING
COMPLETED, FAILED, DEAD = TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.DEAD
#: Where a task may be that goes back to the queue: it may be taken from there at once.
AGAIN = {QUEUED, LEASED, RUNNING}
EXAMPLES, STEPS = 12, 25


class Tasks(RuleBasedStateMachine):
    """What may happen to tasks, one event after another."""

    new_database: ClassVar[Callable[[], str]]
    tasks = Bundle("tasks")

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.over = asyncio.Event()
        self.runner.run(self._open())

    async def _open(self) -> None:
        opened = asyncio.Event()
        loop = asyncio.get_running_loop()
        self.life = loop.create_task(self._live(opened))
        await asyncio.wait({self.life, loop.create_task(opened.wait())}, return_when=asyncio.FIRST_COMPLETED)

    async def _live(self, opened: asyncio.Event) -> None:
        url = parse_url(type(self).new_database(), Path("/nowhere"))
        async with open_engine(url, MIGRATIONS, deadline=Deadline.after(30.0)) as engine, asyncio.TaskGroup() as group:
            self.history = History(engine, AcceptingPort(), group, random.Random(0), Limits())
            await self.history.begin()
            opened.set()
            await self.over.wait()
            await self.history.kill()

    def teardown(self) -> None:
        self.runner.run(self._close())
        self.runner.close()

    async def _close(self) -> None:
        self.over.set()
        await self.life

    @property
    def runtime(self) -> Runtime:
        return self.history.runtime

    def run(self, work: Awaitable[T]) -> T:
        """Do something, within a time that is never needed."""

        async def bounded() -> T:
            async with asyncio.timeout(30.0):
                return await work

        return self.runner.run(bounded())

    def row(self, task: str) -> Task:
        """Return a task as the database has it."""
        return self.run(self.history.queries.task(task))

    def live(self, task: str) -> Order | None:
        """Return the order under whose lease a task is, as a worker has it by now."""

        async def found() -> Order | None:
            while True:
                live = (await self.history.state()).tasks.get(task)
                lease = live.lease_id if live is not None else None
                order = next((one for one in self.history.port.orders if one.lease.id == lease), None)
                if lease is None or order is not None:
                    return order
                await asyncio.sleep(0)

        return self.run(found())

    @rule(
        target=tasks,
        context=st.sampled_from(["a", "b", "c"]),
        priority=st.integers(0, 9),
        attempts=st.integers(1, 3),
    )
    def submit(self, context: str, priority: int, attempts: int) -> str:
        spec = TaskSpec(context_id=context, agent_slug="x", prompt="p", priority=priority, max_attempts=attempts)
        task = self.run(self.runtime.submit(spec, actor="test"))
        assert self.row(task.id).status in AGAIN
        return task.id

    @rule(task=tasks)
    def succeed(self, task: str) -> None:
        order = self.live(task)
        if order is None:
            return
        self.run(self.runtime.report(report_of(order.lease, success=True)))
        row = self.row(task)
        assert (row.status, row.attempts) == (COMPLETED, order.task.attempts)
        # Said again it is refused, and nothing changes.
        self.refused(task, lambda: self.runtime.report(report_of(order.lease, success=True)))

    @rule(task=tasks)
    def fail(self, task: str) -> None:
        order = self.live(task)
        if order is None:
            return
        self.run(self.runtime.report(report_of(order.lease, success=False)))
        row = self.row(task)
        last = order.task.attempts == order.task.max_attempts
        assert (row.status, row.attempts) == (DEAD if last else FAILED, order.task.attempts)

    @rule(task=tasks)
    def hand_back(self, task: str) -> None:
        order = self.live(task)
        if order is None:
            return
        self.run(self.runtime.hand_back(claim_of(order.lease)))
        row = self.row(task)
        # Its attempt was given back, unless it was taken up again meanwhile.
        assert row.attempts == order.task.attempts - (row.status is QUEUED)
        assert row.status in AGAIN
        self.refused(task, lambda: self.runtime.hand_back(claim_of(order.lease)))

    @rule(task=tasks)
    def expire(self, task: str) -> None:
        order = self.live(task)
        if order is None:
            return
        self.run(self.history.expire(order.lease.id))
        row = self.row(task)
        last = order.task.attempts == order.task.max_attempts
        assert row.status in ({DEAD} if last else AGAIN)
        self.refused(task, lambda: self.runtime.report(report_of(order.lease, success=True)))

    @rule(task=tasks)
    def beat(self, task: str) -> None:
        order = self.live(task)
        if order is not None:
            assert self.run(self.runtime.heartbeat(claim_of(order.lease))).id == order.lease.id

    @rule(task=tasks, number=st.integers(0, 1000))
    def speak_under_another_lease(self, task: str, number: int) -> None:
        live, orders = self.live(task), self.history.port.orders
        others = [one for one in orders if live is None or one.lease.id != live.lease.id]
        if not others:
            return
        lease = others[number % len(others)].lease
        if lease.id in self.run(self.history.state()).leases:
            return
        self.refused(lease.task_id, lambda: self.runtime.heartbeat(claim_of(lease)))
        self.refused(lease.task_id, lambda: self.runtime.report(report_of(lease, success=True)))

    @rule(task=tasks)
    def cancel(self, task: str) -> None:
        if self.row(task).status in {COMPLETED, DEAD}:
            with pytest.raises(WrongStateError):
                self.run(self.runtime.cancel(task, reason="", actor="test"))
            return
        assert self.run(self.runtime.cancel(task, reason="", actor="test")).status is DEAD

    @rule(task=tasks)
    def requeue(self, task: str) -> None:
        before = self.row(task)
        if before.status not in {FAILED, DEAD}:
            with pytest.raises(WrongStateError):
                self.run(self.runtime.requeue(task, actor="test"))
            return
        after = self.run(self.runtime.requeue(task, actor="test"))
        assert after.status in AGAIN
        assert after.attempts == (after.status is not QUEUED)

    @rule()
    def kill_the_coordinator(self) -> None:
        """The next tenure begins with what was durable; leases live on."""

        async def killed() -> tuple[list[Lease], list[Lease]]:
            await self.history.kill()
            before = await self.history.queries.active_leases()
            await self.history.begin()
            return before, await self.history.queries.active_leases()

        before, after = self.run(killed())
        assert {lease.id for lease in before} <= {lease.id for lease in after}
        for lease in before:
            # The worker that runs it says so, as when a new tenure probes it.
            running = [one.task_id for one in before if one.worker_id == lease.worker_id]
            given = given_to(self.run(self.history.state()), lease.worker_id)
            said = Believed(worker_id=lease.worker_id, running=frozenset(running), given=given)
            self.run(self.history.applied(said))

    @invariant()
    def promises_hold(self) -> None:
        self.run(self._check())

    async def _check(self) -> None:
        while True:
            before = await self.history.queries.active_leases()
            rows = await self.history.queries.tasks(TasksRequest(limit=1_000))
            if before == await self.history.queries.active_leases():
                break
        await self.history.agree()
        holders = {lease.task_id: lease for lease in before}
        contexts = [lease.context_id for lease in before]
        assert len(holders) == len(before), "a task has two live leases"
        assert len(set(contexts)) == len(contexts), "two tasks of one context run at once"
        for row in rows:
            assert row.attempts <= row.max_attempts
            assert (row.status in {LEASED, RUNNING}) == (row.id in holders), row
            result = await self.history.queries.result(row.id)
            if row.status is COMPLETED:
                assert result is not None
                assert result.status is ResultStatus.SUCCESS

    def refused(self, task: str, say: Callable[[], Awaitable[object]]) -> None:
        """The word is refused as one under a lease that is not live, and what was accepted stays what it was."""
        before = self.run(self.history.queries.result(task))
        with pytest.raises(LeaseLostError):
            self.run(say())
        assert self.run(self.history.queries.result(task)) == before


def claim_of(lease: Lease) -> LeaseClaim:
    return LeaseClaim(lease_id=lease.id, task_id=lease.task_id, worker_id=lease.worker_id)


def report_of(lease: Lease, *, success: bool) -> Report:
    return Report(
        lease_id=lease.id, task_id=lease.task_id, worker_id=lease.worker_id, metrics=Metrics(duration_ms=1),
        status=ResultStatus.SUCCESS if success else ResultStatus.ERROR,
        output="o" if success else None, error_message=None if success else "e",
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_every_order_of_events_keeps_the_promises(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    def new_database() -> str:
        if kind == "sqlite":
            return f"sqlite:///{tmp_path}/{secrets.token_hex(6)}.db"
        return create_database(request.getfixturevalue("postgres"))

    machine = type("OnOneDatabase", (Tasks,), {"new_database": staticmethod(new_database)})
    checks = [HealthCheck.too_slow, HealthCheck.data_too_large]
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=EXAMPLES, stateful_step_count=STEPS, deadline=None, suppress_health_check=checks, database=None
        ),
    )
