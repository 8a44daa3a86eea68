"""Tasks of one context keep their order on each database, whatever the first waits for, and say for what they wait."""

import asyncio
import random
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

from membridge.aio.deadline import Deadline
from membridge.system import clock
from schemas.leases import LeaseClaim, Report
from schemas.results import Metrics, ResultStatus
from schemas.tasks import TaskSpec, TaskStatus
from services.coordinator.engine.placing import explain
from services.coordinator.engine.state import Limits
from services.coordinator.store.migrations import MIGRATIONS
from services.database.engine import open_engine, parse_url
from tests.fixtures.tasks import OpenPlace
from tests.integration.coordinator.histories import AcceptingPort, History


@asynccontextmanager
async def history_on(url: str, folder: Path, limits: Limits | None = None) -> AsyncGenerator[History]:
    async with (
        open_engine(parse_url(url, folder / "x"), MIGRATIONS, deadline=Deadline.after(30.0)) as engine,
        asyncio.TaskGroup() as group,
    ):
        history = History(engine, AcceptingPort(), group, random.Random(1), limits or Limits())
        await history.begin()
        yield history
        await history.kill()


async def submitted(history: History, context: str = "c", **more: object) -> str:
    spec = TaskSpec(context_id=context, agent_slug="x", prompt="p", **more)  # type: ignore[arg-type]
    return (await history.runtime.submit(spec, actor="test")).id


async def until(history: History, task: str, status: TaskStatus) -> None:
    async with asyncio.timeout(20.0):
        while (await history.state()).tasks[task].status is not status:  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(0)


async def end(history: History, task: str, *, success: bool = True) -> None:
    """Wait until a task runs, and report how it ended."""
    await until(history, task, TaskStatus.RUNNING)
    lease = next(one.lease for one in reversed(history.port.orders) if one.task.id == task)
    report = Report(
        lease_id=lease.id, task_id=task, worker_id=lease.worker_id, metrics=Metrics(duration_ms=1),
        status=ResultStatus.SUCCESS if success else ResultStatus.ERROR, output="o" if success else None,
        error_message=None if success else "e",
    )  # fmt: skip
    await history.runtime.report(report)


async def waits_for(history: History, task: str) -> str:
    """Return what a queued task waits for."""
    state = await history.state()
    assert state.tasks[task].status is TaskStatus.QUEUED
    return explain(state, state.tasks[task], asyncio.get_running_loop().time())


def ran(history: History) -> list[str]:
    """Return the tasks in the order in which they were given out."""
    return [one.task.id for one in history.port.orders]


async def test_the_next_one_waits_while_the_first_waits_for_its_next_attempt(database_url: str, tmp_path: Path) -> None:
    async with history_on(database_url, tmp_path) as history:
        first, second, elsewhere = await submitted(history), await submitted(history), await submitted(history, "other")
        await until(history, first, TaskStatus.RUNNING)
        assert (await waits_for(history, second)).startswith(f"waits for task {first} of its context, which runs on w")
        await end(history, first, success=False)
        await end(history, elsewhere)
        for _ in range(2):
            assert f"task {first} of its context, which waits too: its next attempt begins at 2" in (
                await waits_for(history, second)
            )
            # The next tenure keeps the order, too.
            await history.kill()
            await history.begin()
        await history.runtime.requeue(first, actor="test")
        await end(history, first)
        await end(history, second)
        assert ran(history) == [first, elsewhere, first, second]
        await history.agree()


async def test_the_next_one_waits_while_the_first_waits_for_a_label(database_url: str, tmp_path: Path) -> None:
    async with history_on(database_url, tmp_path) as history:
        first, second = await submitted(history, labels=["gpu"]), await submitted(history, priority=9)
        await end(history, await submitted(history, "other"))
        lacking = "no eligible worker because w1 lacks gpu; w2 lacks gpu"
        assert (await waits_for(history, first)) == lacking
        assert (
            await waits_for(history, second)
        ) == f"waits for task {first} of its context, which waits too: {lacking}"
        history.hear("w3", ["gpu"])
        await end(history, first)
        await end(history, second)
        assert ran(history)[1:] == [first, second]


async def test_the_next_one_waits_while_the_first_may_not_begin_and_not_longer(
    database_url: str, tmp_path: Path
) -> None:
    async with history_on(database_url, tmp_path) as history:
        later = clock.stamp(clock.now() + timedelta(hours=1))
        first, second, third = (
            await submitted(history, not_before=later),
            await submitted(history),
            await submitted(history),
        )
        await end(history, await submitted(history, "other"))
        assert (await waits_for(history, first)) == f"it does not begin before {later}"
        for waiting in (second, third):
            assert f"task {first} of its context, which waits too: it does not begin before" in (
                await waits_for(history, waiting)
            )
        await history.runtime.cancel(first, reason="", actor="test")
        await end(history, second)
        await end(history, third)
        # Revived, the first is first again.
        fourth = await submitted(history)
        await until(history, fourth, TaskStatus.RUNNING)
        fifth = await submitted(history)
        await history.runtime.requeue(first, actor="test")
        assert (await waits_for(history, first)).startswith(f"waits for task {fourth} of its context, which runs on w")
        for one in (fourth, first, fifth):
            await end(history, one)
        assert ran(history)[1:] == [second, third, fourth, first, fifth]


async def test_one_revived_while_the_next_runs_is_first_again_however_that_one_is_given_up(
    database_url: str, tmp_path: Path
) -> None:
    async with history_on(database_url, tmp_path) as history:

        async def hand_back(task: str) -> None:
            state = await history.state()
            lease = state.leases[state.tasks[task].lease_id or ""].lease
            await history.runtime.hand_back(LeaseClaim(lease_id=lease.id, task_id=task, worker_id=lease.worker_id))

        async def expire(task: str) -> None:
            await history.expire((await history.state()).tasks[task].lease_id or "")

        async def fail(task: str) -> None:
            await end(history, task, success=False)

        for given_up in (hand_back, expire, fail):
            context = given_up.__name__
            first, second = await submitted(history, context, max_attempts=1), await submitted(history, context)
            await fail(first)
            await until(history, second, TaskStatus.RUNNING)
            await history.runtime.requeue(first, actor="test")
            assert (await waits_for(history, first)).startswith(
                f"waits for task {second} of its context, which runs on w"
            )
            await given_up(second)
            for name in ("w1", "w2"):
                history.hear(name)
            await end(history, first)
            if given_up is fail:
                # Its next attempt is not waited for.
                await history.runtime.requeue(second, actor="test")
            await end(history, second)
            assert ran(history)[-4:] == [first, second, first, second], context
            await history.agree()


async def test_a_priority_counts_against_other_contexts_alone(database_url: str, tmp_path: Path) -> None:
    async with history_on(database_url, tmp_path) as history:
        blocking = [await submitted(history, f"blocked {number}") for number in range(4)]
        for one in blocking:
            await until(history, one, TaskStatus.RUNNING)
        low, high, urgent = (
            await submitted(history, priority=1), await submitted(history, priority=9),
            await submitted(history, "urgent", priority=5),
        )  # fmt: skip
        assert (await waits_for(history, urgent)) == "all eligible workers are full"
        await end(history, blocking[0])
        for one in (urgent, low, high, *blocking[1:]):
            await end(history, one)
        assert ran(history)[4:] == [urgent, low, high]


async def test_without_serial_contexts_nobody_waits(database_url: str, tmp_path: Path) -> None:
    async with history_on(database_url, tmp_path, Limits(serial=False)) as history:
        first, second = await submitted(history, labels=["gpu"]), await submitted(history)
        await until(history, second, TaskStatus.RUNNING)
        third = await submitted(history)
        await until(history, third, TaskStatus.RUNNING)
        assert (await waits_for(history, first)) == "no eligible worker because w1 lacks gpu; w2 lacks gpu"
        await history.agree()


async def test_a_task_that_is_shown_says_for_which_it_waits(opened: OpenPlace) -> None:
    async with opened() as place:
        await place.coordinator()
        await place.worker("w1")
        later = clock.stamp(clock.now() + timedelta(hours=1))
        first, second = await place.submit("one", not_before=later), await place.submit("two")
        await place.until((await place.submit("three", "other")).id, TaskStatus.COMPLETED)
        assert (await place.task(first.id)).reason == f"it does not begin before {later}"
        shown = (await place.task(second.id)).reason
        assert shown.startswith(f"waits for task {first.id} of its context, which waits too: it does not begin before")
