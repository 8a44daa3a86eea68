"""Task jobs: changes of all tasks of a filter, one job at a time and a batch of tasks at a time.

What a batch did is in KV before the next one begins, so a coordinator that takes over goes on behind it. Killed between
the two, it tries that batch again: a task that was changed no longer matches. A tenure writes its epoch into a job
before it works on it, and each write is a compare-and-set: a coordinator that is late cannot move a job back, and the
database rejects what it would change.
"""

import asyncio
import secrets
from collections import Counter
from collections.abc import Callable, Mapping

from msgspec.structs import replace

from membridge.aio.backoff import Backoff
from membridge.aio.deadline import Deadline
from membridge.bus.kv import Entry, Kv
from membridge.errors import (
    LeaseLostError,
    MembridgeError,
    NotFoundError,
    OverloadedError,
    RevisionMovedError,
    UnavailableError,
)
from membridge.system import clock
from membridge.system.logging import get_logger
from schemas.task_changes import ChangeTasksReply, ChangeTasksRequest, TaskJob, TaskJobsReply, TaskJobState
from schemas.tasks import TaskFilter
from services.coordinator.engine.ids import made_at, ordered_id
from services.coordinator.many_tasks import AT_ONCE, OF_ALL, POSSIBLE, change, preview
from services.coordinator.runtime import Runtime
from services.coordinator.store.queries import Queries

log = get_logger("membridge.coordinator")

#: Jobs that may be unfinished at once, and those that ended and are kept.
MOST_UNFINISHED, KEPT = 16, 100
#: Seconds that one read or write of a job may take.
WRITE = 5.0
#: Seconds until a job is tried again whose batch failed as a whole: at first, and at most.
PAUSE, MOST_PAUSE = 0.5, 10.0


class TaskJobs:
    """The jobs of one tenure. `run` works on them."""

    def __init__(self, kept: Kv[TaskJob], queries: Queries, runtime: Runtime, epoch: int) -> None:
        self._kept, self._queries, self._runtime, self._epoch = kept, queries, runtime, epoch
        self._entries: dict[str, Entry[TaskJob]] = {}
        self._is_read = False
        self._writing, self._news = asyncio.Lock(), asyncio.Event()

    async def start(self, request: ChangeTasksRequest, *, actor: str) -> ChangeTasksReply:
        """Begin a job for the filter of a request; return it with what it will change.

        Errors: InvalidRequestError without any condition, OverloadedError, the bus's.
        """
        found, _ = await preview(self._queries, request)
        if found.through is None:
            return replace(found, applied=True)
        at = clock.now()
        job = TaskJob(
            id=ordered_id(at.timestamp(), secrets.token_bytes(10)),
            change=request.change,
            filter=request.filter or TaskFilter(),
            through=request.through or found.through,
            reason=request.reason,
            total=sum(found.counts.values()),
            requested_by=actor,
            started_at=clock.stamp(at),
            updated_at=clock.stamp(at),
            epoch=self._epoch,
        )
        async with self._writing:
            if sum(entry.value.state is TaskJobState.RUNNING for entry in self._entries.values()) >= MOST_UNFINISHED:
                raise OverloadedError(f"{MOST_UNFINISHED} task jobs are not at their end yet")
            try:
                revision = await self._kept.create(job.id, job, deadline=Deadline.after(WRITE))
            except MembridgeError:
                # It may be stored all the same; then it is found and done.
                self._is_read = False
                self._news.set()
                raise
            self._entries[job.id] = Entry(job.id, job, revision)
        self._news.set()
        return replace(found, applied=True, left=0, job=job)

    async def stop(self, name: str) -> TaskJob:
        """End a job before its next batch; what it changed stays. Raises NotFoundError."""

        def stopped(job: TaskJob) -> TaskJob:
            return replace(job, state=TaskJobState.STOPPED, ended_at=clock.stamp())

        return await self._write(name, lambda job: stopped(job) if job.state is TaskJobState.RUNNING else job)

    async def run(self) -> None:
        """Work on the jobs, the oldest first, until cancelled. Raises LeaseLostError when a later tenure has them."""
        backoff = Backoff(PAUSE, MOST_PAUSE)
        while True:
            try:
                if not self._is_read:
                    await self._read()
                running = (name for name, entry in self._entries.items() if entry.value.state is TaskJobState.RUNNING)
                # Ids begin with the time at which they were made.
                if (oldest := min(running, default=None)) is not None:
                    await self._advance(self._entries[oldest].value)
                else:
                    await self._news.wait()
                    self._news.clear()
                backoff.reset()
            except LeaseLostError:
                raise
            except MembridgeError as error:
                log.info("task jobs wait", reason=error.message)
                await asyncio.sleep(backoff.failed())

    async def _read(self) -> None:
        async with self._writing:
            self._entries = await self._kept.entries(deadline=Deadline.after(WRITE))
            self._is_read = True
        for name, entry in list(self._entries.items()):
            if entry.value.state is TaskJobState.RUNNING and entry.value.epoch != self._epoch:
                await self._write(name, lambda job: job)

    async def _advance(self, job: TaskJob) -> None:
        """Try the next tasks of a job, or end it."""
        ids = await self._queries.ids(
            job.filter, of=POSSIBLE[job.change], through=job.through, after=job.cursor, limit=AT_ONCE
        )
        if not ids:
            await self._write(job.id, _ended)
            await self._forget_old()
            return
        outcomes = await change(self._runtime, job.change, ids, reason=job.reason, actor=job.requested_by)
        failed = {code: outcomes.pop(code) for code in OF_ALL & outcomes.keys()}
        tried = sum(outcomes.values())
        await self._write(job.id, lambda now: _advanced(now, outcomes, tried, job.cursor if failed else ids[-1]))
        if failed:
            raise UnavailableError(f"{sum(failed.values())} tasks were refused: {', '.join(sorted(failed))}")

    async def _write(self, name: str, moved: Callable[[TaskJob], TaskJob]) -> TaskJob:
        """Write a job as `moved` makes it of what is kept. Errors: NotFoundError, LeaseLostError, the bus's."""
        async with self._writing:
            deadline = Deadline.after(WRITE)
            entry = self._entries.get(name) or await _found(self._kept, name, deadline)
            while entry is not None:
                job = moved(entry.value)
                if job == entry.value and job.epoch == self._epoch:
                    return job
                job = replace(job, updated_at=clock.stamp(), epoch=self._epoch)
                try:
                    revision = await self._kept.update(name, job, revision=entry.revision, deadline=deadline)
                except RevisionMovedError as error:
                    entry = await self._kept.get(name, deadline=deadline)
                    if entry is not None and entry.value.epoch > self._epoch:
                        raise LeaseLostError("another coordinator works on the task jobs") from error
                    # The answer to an earlier write of this tenure was lost: it is stored, and this one follows it.
                    continue
                self._entries[name] = Entry(name, job, revision)
                return job
            self._entries.pop(name, None)
            raise _missing(name)

    async def _forget_old(self) -> None:
        ended = sorted(name for name, entry in self._entries.items() if entry.value.state is not TaskJobState.RUNNING)
        for name in ended[:-KEPT]:
            await self._kept.delete(name, deadline=Deadline.after(WRITE))
            del self._entries[name]


async def listed(kept: Kv[TaskJob]) -> TaskJobsReply:
    """Return the jobs that are kept, newest first."""
    entries = await kept.entries(deadline=Deadline.after(WRITE))
    return TaskJobsReply(jobs=[entries[name].value for name in sorted(entries, reverse=True)])


async def one(kept: Kv[TaskJob], name: str) -> TaskJob:
    """Return a job. Raises NotFoundError."""
    entry = await _found(kept, name, Deadline.after(WRITE))
    if entry is None:
        raise _missing(name)
    return entry.value


async def _found(kept: Kv[TaskJob], name: str, deadline: Deadline) -> Entry[TaskJob] | None:
    # No other text is a key.
    return await kept.get(name, deadline=deadline) if made_at(name) is not None else None


def _missing(name: str) -> NotFoundError:
    return NotFoundError(f"there is no task job {name}", remedy="list them: GET /api/runtime/task-jobs")


def _ended(job: TaskJob) -> TaskJob:
    return replace(job, state=TaskJobState.DONE, ended_at=clock.stamp()) if job.state is TaskJobState.RUNNING else job


def _advanced(job: TaskJob, outcomes: Mapping[str, int], tried: int, cursor: str | None) -> TaskJob:
    return replace(
        job, cursor=cursor, tried=job.tried + tried, outcomes=dict(Counter(job.outcomes) + Counter(outcomes))
    )
