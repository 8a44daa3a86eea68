"""Jobs: each push and pull as a record that outlives the process, and its progress while it runs.

The JOBS stream keeps the last state of each job. A job that cannot be recorded runs all the same: the memory matters
more than its history.
"""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from membridge.aio.deadline import Deadline
from membridge.aio.tasks import background
from membridge.bus.connection import Bus
from membridge.bus.errors import StreamMissingError
from membridge.bus.publisher import tell
from membridge.bus.streams import last_per_subject
from membridge.commits.progress import Listener, ProgressTracker
from membridge.errors import MembridgeError, NotFoundError
from membridge.system import clock, memory
from membridge.system.logging import get_logger
from schemas import streams, subjects
from schemas.events import Progress, encode_event
from schemas.identity import TOKEN, NodeId, ProjectId
from schemas.node import Job, JobState
from schemas.wire import Wire, WireError, decode, encode

log = get_logger("membridge.jobs")

R = TypeVar("R", bound=Wire)

#: Who asks for what a node does by itself.
AUTO = "auto-sync"
#: Jobs of one list.
LISTED = 100
#: Seconds a record may take to reach the stream.
RECORD_DEADLINE = 2.0
#: Seconds before a job first reports progress, between two reports, and until a step that stands still is told again.
PROGRESS_AFTER = 1.0
PROGRESS_EVERY = 0.5
PROGRESS_AGAIN = 2.0


@dataclass(frozen=True, slots=True)
class RequestContext:
    """Who asked for an operation, until when an answer is of use, and who listens to its progress."""

    by: str
    deadline: Deadline
    listener: Listener | None = None


class Jobs:
    """Runs and records the jobs of one project on one node."""

    def __init__(self, bus: Bus, project: ProjectId, node: NodeId) -> None:
        self._bus, self._project, self._node = bus, project, node

    async def run(self, kind: str, act: Callable[[ProgressTracker], Awaitable[R]], *, by: str = AUTO) -> R:
        """Run `act` as a job and return its reply; a failure is recorded and raised."""
        return await self._run(self._new(kind, by), act)

    async def answer(self, kind: str, context: RequestContext, act: Callable[[ProgressTracker], Awaitable[R]]) -> R:
        """Run `act` as a job of a request; the reply names the job and how long it took."""
        began, job = time.monotonic(), self._new(kind, context.by)
        reply = await self._run(job, act, context.listener)
        return msgspec.structs.replace(reply, seconds=round(time.monotonic() - began, 3), job_id=job.id)

    def _new(self, kind: str, by: str) -> Job:
        return Job(
            id=f"{clock.now().strftime('%Y%m%dT%H%M%S')}-{secrets.token_hex(4)}",
            project=self._project,
            node=self._node,
            kind=kind,
            requested_by=by,
            started_at=clock.stamp(),
        )

    async def _run(
        self, job: Job, act: Callable[[ProgressTracker], Awaitable[R]], listener: Listener | None = None
    ) -> R:
        began = time.monotonic()
        await self._record(job)
        throttle = _Throttle(listener)
        progress = ProgressTracker(throttle.hear)
        try:
            reply = await self._with_progress(job, throttle, act(progress))
        except MembridgeError as error:
            _log_failure(job, error.message, remedy=error.remedy, code=error.code)
            await self._record(self._ended(job, progress, JobState.FAILED, error=error.message))
            raise
        except BaseException as error:
            state = JobState.FAILED if isinstance(error, Exception) else JobState.ABANDONED
            _log_failure(job, type(error).__name__)
            await self._record(self._ended(job, progress, state, error=type(error).__name__))
            raise
        finally:
            memory.give_back()
        outcome = str(getattr(reply, "outcome", "done"))
        if job.requested_by != AUTO:
            log.info(
                "job done", project=job.project, kind=job.kind, job=job.id, by=job.requested_by, outcome=outcome,
                seconds=round(time.monotonic() - began, 3),
            )  # fmt: skip
        await self._record(self._ended(job, progress, JobState.DONE, result=outcome))
        return reply

    async def listed(self, *, limit: int, deadline: Deadline) -> list[Job]:
        """Return the newest jobs of the project on all nodes, newest first."""
        return await self._read("*", limit=limit, deadline=deadline)

    async def one(self, job_id: str, *, deadline: Deadline) -> Job:
        """Return a job of the project. Raises NotFoundError."""
        known = TOKEN.fullmatch(job_id) is not None
        found = await self._read(job_id, limit=1, deadline=deadline) if known else []
        if not found:
            raise NotFoundError(f"there is no job {job_id}", remedy="run `membridge jobs`", field="id")
        return found[0]

    async def abandon_left(self) -> None:
        """Record jobs of a killed daemon of this node as abandoned. Call it before any job runs."""
        try:
            mine = await self._read("*", node=self._node, limit=LISTED, deadline=Deadline.after(RECORD_DEADLINE))
        except MembridgeError as error:
            log.warning("jobs of an earlier run not looked at", reason=error.message)
            return
        for job in mine:
            if job.state is JobState.RUNNING:
                await self._record(
                    self._ended(job, ProgressTracker(), JobState.ABANDONED, error="the daemon was killed while it ran")
                )

    async def _read(self, job_id: str, *, node: str = "*", limit: int, deadline: Deadline) -> list[Job]:
        filter_subject = subjects.JOB.format(project=self._project, node=node, job=job_id)
        try:
            messages = await last_per_subject(self._bus, streams.JOBS, filter_subject, limit=limit, deadline=deadline)
        except StreamMissingError:
            # No daemon ever ran with this server.
            return []
        jobs: list[Job] = []
        for message in messages:
            try:
                jobs.append(decode(message.body, Job))
            except WireError:
                log.warning("a job record cannot be read", subject=message.subject)
        return sorted(jobs, key=lambda job: job.started_at, reverse=True)

    async def _with_progress(self, job: Job, throttle: "_Throttle", act: Awaitable[R]) -> R:
        async with background() as group:
            group.create_task(self._tell(job, throttle), name="job progress")
            return await act

    async def _tell(self, job: Job, throttle: "_Throttle") -> None:
        subject = subjects.fill(subjects.PROGRESS, project=self._project, node=self._node)
        while True:
            step, done, total = await throttle.next()
            event = Progress(
                project=self._project,
                node=self._node,
                at=clock.stamp(),
                job_id=job.id,
                kind=job.kind,
                step=step,
                done=done,
                total=total,
            )
            await tell(self._bus, subject, encode_event(event))

    def _ended(
        self, job: Job, progress: ProgressTracker, state: JobState, *, result: str = "", error: str | None = None
    ) -> Job:
        ended = clock.stamp()
        return msgspec.structs.replace(
            job, state=state, ended_at=ended, steps=progress.done, result=result, error=error
        )

    async def _record(self, job: Job) -> None:
        subject = subjects.fill(subjects.JOB, project=job.project, node=job.node, job=job.id)
        try:
            await self._bus.stream_publish(
                subject, encode(job), message_id=f"{job.id}.{job.state}", deadline=Deadline.after(RECORD_DEADLINE)
            )
        except MembridgeError as error:
            log.warning("job not recorded", job=job.id, reason=error.message)


def _log_failure(job: Job, reason: str, *, remedy: str = "", code: str = "") -> None:
    """Log the failure of a requested job; auto-sync logs its own failures."""
    if job.requested_by == AUTO:
        return
    about = {"project": job.project, "kind": job.kind, "job": job.id, "by": job.requested_by}
    log.warning("job failed", **about, reason=reason, remedy=remedy, code=code)


class _Throttle:
    """Forwards progress after a job's first second, then at a bounded rate. Safe to call from any thread.

    Progress of the first second is forwarded when it is over, and what stands still is forwarded again, so that a
    stalled transfer is shown, also to whoever looks later.
    """

    def __init__(self, local: Listener | None) -> None:
        self._local = local
        self._loop = asyncio.get_running_loop()
        self._told = asyncio.Event()
        self._latest = ("", 0, 0)
        self._next = time.monotonic() + PROGRESS_AFTER

    def hear(self, step: str, done: int, total: int) -> None:
        self._latest = (step, done, total)
        if not self._told.is_set():
            self._loop.call_soon_threadsafe(self._told.set)

    async def next(self) -> tuple[str, int, int]:
        """Wait for new progress and for its turn, and return the latest; what stands still is told again."""
        with suppress(TimeoutError):
            async with asyncio.timeout(PROGRESS_AGAIN if self._latest[0] else None):
                await self._told.wait()
        await asyncio.sleep(max(0.0, self._next - time.monotonic()))
        self._told.clear()
        self._next = time.monotonic() + PROGRESS_EVERY
        if self._local is not None:
            self._local(*self._latest)
        return self._latest
