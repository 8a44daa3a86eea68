"""Task jobs on each database: to their end, stopped, over a change of coordinator, and with answers that are lost."""

import asyncio
import itertools
from collections.abc import Callable
from typing import Any, cast

import pytest

from membridge.bus.kv import Entry, Kv
from membridge.bus.rpc import RpcClient
from membridge.errors import DeadlineExceededError, LeaseLostError, OverloadedError, RemoteError
from schemas import buckets, subjects
from schemas.errors import ErrorCode
from schemas.node import Empty
from schemas.task_changes import ChangeTasksRequest, TaskChange, TaskJob, TaskJobRequest, TaskJobState
from schemas.tasks import TaskFilter, TaskStatus
from services.coordinator import task_jobs
from services.coordinator.task_jobs import TaskJobs
from tests.fixtures.tasks import SOON, OpenPlace, Place, soon

#: A change of all tasks with a word in their prompt.
CANCEL = ChangeTasksRequest(
    change=TaskChange.CANCEL, filter=TaskFilter(q="many"), apply=True, as_job=True, reason="a test"
)


async def submitted(place: Place, count: int, prompt: str = "many") -> list[str]:
    """Submit tasks; return their ids, oldest first."""
    return [(await place.submit(f"{prompt} {number}", f"{prompt}-{number}")).id for number in range(count)]


async def started(place: Place, request: ChangeTasksRequest = CANCEL) -> TaskJob:
    """Begin a job and return it."""
    reply = await RpcClient(place.bus).request(subjects.CHANGE_TASKS, request, deadline=soon())
    assert reply.applied
    assert reply.job is not None
    return reply.job


async def read(place: Place, job: TaskJob) -> TaskJob:
    """Return a job as it is kept."""
    return await RpcClient(place.bus).request(subjects.TASK_JOB, TaskJobRequest(id=job.id), deadline=soon())


async def until(place: Place, job: TaskJob, wanted: Callable[[TaskJob], bool]) -> TaskJob:
    """Wait until a job is as wanted; each step of it is news in its bucket."""
    async with place.bus.subscribe(f"$KV.{buckets.TASK_JOBS.name}.>") as news, asyncio.timeout(SOON):
        while not wanted(now := await read(place, job)):
            await news.next()
    return now


def is_done(job: TaskJob) -> bool:
    return job.state is TaskJobState.DONE


async def task_jobs_of(place: Place) -> list[TaskJob]:
    """Return the jobs that are kept."""
    return (await RpcClient(place.bus).request(subjects.TASK_JOBS, Empty(), deadline=soon())).jobs


async def statuses(place: Place) -> dict[str, int]:
    """Return how many tasks there are of each status."""
    return (await RpcClient(place.bus).request(subjects.STATS, Empty(), deadline=soon())).tasks


async def test_a_job_changes_all_tasks_of_a_filter_and_none_that_came_later(
    opened: OpenPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task_jobs, "AT_ONCE", 10)
    async with opened() as place:
        await place.coordinator()
        many, _ = await submitted(place, 35), await submitted(place, 2, "other")
        preview = await RpcClient(place.bus).request(
            subjects.CHANGE_TASKS, ChangeTasksRequest(change=TaskChange.CANCEL, filter=CANCEL.filter), deadline=soon()
        )
        late = await submitted(place, 1)
        job = await started(place, ChangeTasksRequest(**{**fields(CANCEL), "through": preview.through}))
        assert (job.state, job.total, job.requested_by != "") == (TaskJobState.RUNNING, 35, True)
        done = await until(place, job, is_done)
        assert (done.tried, done.outcomes, done.cursor) == (35, {"changed": 35}, many[0])
        assert done.ended_at is not None
        assert await statuses(place) == {"dead": 35, "queued": 3}
        assert (await place.task(many[7])).reason == "a test"
        assert (await place.task(late[0])).status is TaskStatus.QUEUED
        # The other way round, and both are listed, the newest first.
        again = await started(
            place, ChangeTasksRequest(change=TaskChange.REQUEUE, filter=TaskFilter(q="many"), apply=True, as_job=True)
        )
        await until(place, again, is_done)
        assert await statuses(place) == {"queued": 38}
        assert [one.id for one in await task_jobs_of(place)] == [again.id, job.id]
        # Nothing matches: nothing begins.
        reply = await RpcClient(place.bus).request(
            subjects.CHANGE_TASKS,
            ChangeTasksRequest(**{**fields(CANCEL), "filter": TaskFilter(q="zz")}),
            deadline=soon(),
        )
        assert (reply.applied, reply.counts, reply.job) == (True, {}, None)


async def test_the_next_coordinator_goes_on_where_the_last_one_was(
    opened: OpenPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task_jobs, "AT_ONCE", 5)
    gate = asyncio.Event()
    whole = task_jobs.change

    async def slow(*args: Any, **more: Any) -> Any:
        # The second batch waits, so that the coordinator ends within the job.
        if gate.is_set():
            await asyncio.Event().wait()
        gate.set()
        return await whole(*args, **more)

    async with opened() as place:
        first = await place.coordinator()
        await submitted(place, 18)
        monkeypatch.setattr(task_jobs, "change", slow)
        job = await started(place)
        await until(place, job, lambda now: now.tried == 5)
        first.cancel()
        await asyncio.wait({first})
        monkeypatch.setattr(task_jobs, "change", whole)
        await place.coordinator()
        done = await until(place, job, is_done)
        assert (done.tried, done.outcomes) == (18, {"changed": 18})
        assert done.epoch > job.epoch
        assert await statuses(place) == {"dead": 18}


async def test_a_job_is_stopped_between_two_batches(opened: OpenPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_jobs, "AT_ONCE", 5)
    goes_on, tried = asyncio.Event(), asyncio.Event()
    whole = task_jobs.change

    async def held(*args: Any, **more: Any) -> Any:
        found = await whole(*args, **more)
        tried.set()
        await goes_on.wait()
        return found

    monkeypatch.setattr(task_jobs, "change", held)
    async with opened() as place:
        await place.coordinator()
        await submitted(place, 12)
        job = await started(place)
        async with asyncio.timeout(SOON):
            await tried.wait()
        stopped = await RpcClient(place.bus).request(subjects.STOP_TASK_JOB, TaskJobRequest(id=job.id), deadline=soon())
        assert stopped.state is TaskJobState.STOPPED
        goes_on.set()
        now = await until(place, job, lambda now: now.tried == 5)
        assert (now.state, now.outcomes) == (TaskJobState.STOPPED, {"changed": 5})
        assert await statuses(place) == {"dead": 5, "queued": 7}
        # Stopped again, it is as it was; what is no job is not found.
        again = await RpcClient(place.bus).request(subjects.STOP_TASK_JOB, TaskJobRequest(id=job.id), deadline=soon())
        assert again == now
        for operation in (subjects.STOP_TASK_JOB, subjects.TASK_JOB):
            for name in ("nothing", "a.b *", "01900000-0000-7000-8000-000000000000"):
                with pytest.raises(RemoteError) as refused:
                    await RpcClient(place.bus).request(operation, TaskJobRequest(id=name), deadline=soon())
                assert refused.value.code is ErrorCode.NOT_FOUND, name


def losing_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have each write to the bucket of jobs stored, and the answer to every other one lost."""
    whole, written = Kv[TaskJob]._write, itertools.count()

    async def write(self: Kv[Any], *args: Any, **more: Any) -> int:
        revision = await whole(self, *args, **more)
        if self.bucket is buckets.TASK_JOBS and next(written) % 2 == 0:
            raise DeadlineExceededError("the answer was lost")
        return revision

    monkeypatch.setattr(Kv, "_write", write)


async def test_answers_that_are_lost_leave_every_task_changed_and_counted_once(
    opened: OpenPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task_jobs, "AT_ONCE", 5)
    monkeypatch.setattr(task_jobs, "PAUSE", 0.01)
    async with opened() as place:
        await place.coordinator()
        await submitted(place, 18)
        losing_answers(monkeypatch)
        with pytest.raises(RemoteError) as lost:
            await started(place)
        assert lost.value.code is ErrorCode.DEADLINE_EXCEEDED
        # It is stored all the same, and it is done.
        [job] = await task_jobs_of(place)
        done = await until(place, job, is_done)
        assert (done.tried, done.outcomes) == (18, {"changed": 18})
        assert await statuses(place) == {"dead": 18}


async def test_a_late_coordinator_moves_no_job(opened: OpenPlace) -> None:
    async with opened() as place:
        await place.coordinator()
        await submitted(place, 3, "other")
        kept = Kv(place.bus, buckets.TASK_JOBS)
        await started(place, ChangeTasksRequest(**{**fields(CANCEL), "filter": TaskFilter(q="other")}))
        [job] = await task_jobs_of(place)
        job = await until(place, job, is_done)
        nothing = cast("Any", None)
        late = TaskJobs(kept, nothing, nothing, epoch=job.epoch - 1)
        moved = cast("dict[str, Entry[TaskJob]]", vars(late)["_entries"])
        moved[job.id] = Entry(job.id, TaskJob(**{**fields(job), "state": TaskJobState.RUNNING}), revision=1)
        with pytest.raises(LeaseLostError):
            await late.stop(job.id)
        assert await read(place, job) == job


async def test_the_number_of_jobs_is_bounded_and_old_ones_go(
    opened: OpenPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task_jobs, "MOST_UNFINISHED", 2)
    monkeypatch.setattr(task_jobs, "KEPT", 3)
    goes_on = asyncio.Event()
    whole = task_jobs.change

    async def held(*args: Any, **more: Any) -> Any:
        await goes_on.wait()
        return await whole(*args, **more)

    monkeypatch.setattr(task_jobs, "change", held)
    async with opened() as place:
        await place.coordinator()
        await submitted(place, 3)
        jobs = [await started(place), await started(place)]
        with pytest.raises(RemoteError) as refused:
            await started(place)
        assert refused.value.code is OverloadedError.code
        goes_on.set()
        for job in jobs:
            await until(place, job, is_done)
        for _ in range(4):
            await submitted(place, 1)
            jobs.append(await started(place))
            await until(place, jobs[-1], is_done)
        # The oldest goes after the last step of the newest, which is news too.
        async with place.bus.subscribe(f"$KV.{buckets.TASK_JOBS.name}.>") as news, asyncio.timeout(SOON):
            while [one.id for one in await task_jobs_of(place)] != [job.id for job in jobs[:-4:-1]]:
                await news.next()


def fields(one: ChangeTasksRequest | TaskJob) -> dict[str, Any]:
    return {name: getattr(one, name) for name in one.__struct_fields__}
