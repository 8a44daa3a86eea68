"""Random histories of the runtime on real databases, checked against a model and against what the database says.

A tenure may end at any point, as by SIGKILL: the next one begins with what was durable.
"""

import asyncio
import random
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from membridge.aio.deadline import Deadline
from membridge.errors import LeaseLostError, MembridgeError
from schemas.leases import LeaseClaim, Report
from schemas.results import Metrics, ResultStatus
from schemas.tasks import Policy, TaskSpec, TaskStatus
from services.coordinator.engine.events import Compared, Lapsed
from services.coordinator.engine.state import Limits, State
from services.coordinator.runtime import Runtime
from services.coordinator.store.epoch import begin_tenure
from services.coordinator.store.migrations import MIGRATIONS
from services.coordinator.store.queries import Queries
from services.database.engine import open_engine, parse_url
from tests.integration.coordinator.histories import AcceptingPort, History

STEPS = 60


@pytest.mark.parametrize("round_number", range(3))
async def test_no_history_breaks_a_promise(database_url: str, tmp_path: Path, round_number: int) -> None:
    async with AsyncExitStack() as stack:
        engine = await stack.enter_async_context(
            open_engine(parse_url(database_url, tmp_path / "x"), MIGRATIONS, deadline=Deadline.after(30.0))
        )
        async with asyncio.TaskGroup() as group:
            history = History(engine, AcceptingPort(), group, random.Random(round_number))
            for _ in range(3):
                runtime = await history.begin()
                for _ in range(STEPS):
                    await history.step(runtime)
                await history.kill()
                await history.check()
            # In the end everything ends: workers answer, and nothing is left over.
            runtime = await history.begin()
            await _finish(history, runtime)
            await history.kill()
            await history.check()
            for task in history.tasks:
                assert (await history.queries.task(task.id)).status in {TaskStatus.COMPLETED, TaskStatus.DEAD}


async def test_an_old_term_writes_nothing_any_more(database_url: str, tmp_path: Path) -> None:
    async with (
        open_engine(parse_url(database_url, tmp_path / "x"), MIGRATIONS, deadline=Deadline.after(30.0)) as engine,
        asyncio.TaskGroup() as group,
    ):
        history = History(engine, AcceptingPort(), group, random.Random(1))
        old = await history.begin()
        await begin_tenure(engine)
        with pytest.raises(MembridgeError, match="another coordinator"):
            await old.submit(TaskSpec(context_id="c", agent_slug="a", prompt="p"), actor="test")
        assert await Queries(engine).counts() == {}
        # That ended it.
        assert history.tenure is not None
        await asyncio.wait({history.tenure})
        assert [error.message for error in history.ended_by if isinstance(error, MembridgeError)] == [
            "another coordinator schedules now"
        ]


async def test_a_silent_worker_loses_its_task_within_the_leases_time_and_a_second(
    database_url: str, tmp_path: Path
) -> None:
    async with (
        open_engine(parse_url(database_url, tmp_path / "x"), MIGRATIONS, deadline=Deadline.after(30.0)) as engine,
        asyncio.TaskGroup() as group,
    ):
        history = History(engine, AcceptingPort(), group, random.Random(1))
        runtime = await history.begin()
        spec = TaskSpec(context_id="c", agent_slug="a", prompt="p", policy=Policy(timeout_sec=1), max_attempts=2)
        task = await runtime.submit(spec, actor="test")
        given: list[float] = []
        for _ in range(2):
            await history.port.arrived.wait()
            history.port.arrived.clear()
            given.append(asyncio.get_running_loop().time())
        assert 0.9 < given[1] - given[0] < 1.0 + 1.0
        async with asyncio.timeout(5.0):
            while (await history.queries.task(task.id)).status is not TaskStatus.DEAD:  # noqa: ASYNC110 - no event tells
                await asyncio.sleep(0)
        first, second = history.port.orders
        assert first.lease.id != second.lease.id
        late = Report(
            lease_id=first.lease.id, task_id=task.id, worker_id=first.lease.worker_id, status=ResultStatus.SUCCESS,
            output="late", metrics=Metrics(duration_ms=1),
        )  # fmt: skip
        with pytest.raises(LeaseLostError):
            await runtime.report(late)
        assert await history.queries.result(task.id) is None
        await history.kill()


@pytest.mark.parametrize("told_by", ["marker", "reconciliation"])
@pytest.mark.parametrize("heard_of", [False, True])
async def test_a_lease_of_an_earlier_term_ends_when_the_server_says_so_unless_it_was_heard_of(
    database_url: str, tmp_path: Path, heard_of: bool, told_by: str
) -> None:
    async def end(history: History, lease_id: str) -> State:
        return await history.applied(Lapsed(lease_id) if told_by == "marker" else Compared(frozenset()))

    async with (
        open_engine(parse_url(database_url, tmp_path / "x"), MIGRATIONS, deadline=Deadline.after(30.0)) as engine,
        asyncio.TaskGroup() as group,
    ):
        history = History(engine, AcceptingPort(), group, random.Random(1), Limits())
        runtime = await history.begin()
        task = await runtime.submit(TaskSpec(context_id="c", agent_slug="a", prompt="p"), actor="test")
        await history.port.arrived.wait()
        lease = history.port.orders[0].lease
        assert lease.id in (await end(history, lease.id)).leases, "this tenure leased it, so its own timer decides"
        await history.kill()
        history.port.arrived.clear()
        runtime = await history.begin({lease.id})
        if heard_of:
            claim = LeaseClaim(lease_id=lease.id, task_id=task.id, worker_id=lease.worker_id)
            await runtime.heartbeat(claim)
            assert lease.id in (await end(history, lease.id)).leases
        else:
            await end(history, lease.id)
            async with asyncio.timeout(10.0):
                await history.port.arrived.wait()
            again = history.port.orders[-1]
            assert (again.task.id, again.task.attempts, again.lease.id != lease.id) == (task.id, 2, True)
        await history.kill()


async def _finish(history: History, runtime: Runtime) -> None:
    async with asyncio.timeout(60.0):
        while (await runtime.settled()).tasks:
            for lease_id, held in list((await runtime.settled()).leases.items()):
                report = Report(
                    lease_id=lease_id, task_id=held.lease.task_id, worker_id=held.lease.worker_id,
                    status=ResultStatus.SUCCESS, output="o", metrics=Metrics(duration_ms=1),
                )  # fmt: skip
                try:
                    await runtime.report(report)
                except MembridgeError:
                    continue
            history.port.arrived.clear()
            state = await runtime.settled()
            if state.tasks and not state.leases:
                async with asyncio.timeout(20.0):
                    await history.port.arrived.wait()
            await asyncio.sleep(0)
