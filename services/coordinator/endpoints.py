"""The endpoints of a coordinator. Each one answers reads from the database; the one that schedules answers the rest.

A request for the scheduler that reaches another coordinator is passed on. While no coordinator schedules, it waits for
one until its deadline.
"""

import asyncio
import codecs
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any, TypeVar

import msgspec

from membridge.aio.backoff import Backoff
from membridge.aio.deadline import Deadline
from membridge.bus.caller import CALLER
from membridge.bus.connection import Bus
from membridge.bus.feed import page_of
from membridge.bus.kv import Kv
from membridge.bus.rpc import RpcClient
from membridge.bus.service import Call, Endpoint
from membridge.errors import ForbiddenError, NoResponderError, NotFoundError, RemoteError, UnavailableError
from membridge.objectstore.protocol import ObjectStore
from membridge.system import clock
from schemas import buckets, streams, subjects
from schemas.audit import AuditReply, AuditRequest, StatsReply
from schemas.errors import ErrorCode
from schemas.leases import LeaseClaim, LeaseRequest, LeasesReply, LeasesRequest
from schemas.node import Empty
from schemas.results import Artifact, ArtifactRequest, ArtifactsReply, ArtifactsRequest, ResultReply
from schemas.runs import RunsReply, RunsRequest
from schemas.subjects import Operation
from schemas.task_changes import ChangeTasksReply, ChangeTasksRequest, TaskJob, TaskJobRequest, TaskJobsReply
from schemas.task_events import EventsReply, EventsRequest, decode_task_event
from schemas.tasks import (
    Task,
    TaskRequest,
    TaskSpec,
    TasksReply,
    TasksRequest,
)
from schemas.wire import Wire
from schemas.workers import Registration, Worker, WorkerRequest, WorkersReply
from services.coordinator.engine.workers import all_shown, shown
from services.coordinator.many_tasks import change_tasks
from services.coordinator.runtime import Runtime
from services.coordinator.store.queries import Queries
from services.coordinator.task_jobs import TaskJobs, listed, one
from services.coordinator.together import explained, read_tasks, submit_tasks

Q = TypeVar("Q", bound=Wire)
R = TypeVar("R", bound=Wire)

#: The queue group in which coordinators share requests.
GROUP = "coordinators"
#: Requests of one operation that are worked on at once.
AT_ONCE = 128
#: Bytes of a large output that an answer may hold; NATS takes a mebibyte.
INLINE_ANSWER = 512 << 10
#: Seconds within which attempts that ended are counted, and how many at most.
RATE_SECONDS, RATE_OF = 60.0, 10_000
#: Seconds for which the address of a large output is good.
SHARED = 3_600
#: Seconds between two tries to reach a scheduler, at first and at most.
FIRST_PAUSE, MOST_PAUSE = 0.02, 0.5


class Endpoints:
    """The endpoints of one coordinator. `runtime` and `jobs` are set while it schedules."""

    def __init__(self, bus: Bus, queries: Queries, objects: ObjectStore, *, name: str, database: str) -> None:
        self._bus, self._queries, self._objects = bus, queries, objects
        self._name, self._database = name, database
        self._jobs_kept = Kv(bus, buckets.TASK_JOBS)
        self.runtime: Runtime | None = None
        self.jobs: TaskJobs | None = None

    def shared(self) -> list[Endpoint]:
        """Return the endpoints that all coordinators share."""
        return [*self._questions(), *(self._passed_on(endpoint) for endpoint in self.of_scheduler())]

    def of_scheduler(self) -> list[Endpoint]:
        """Return the endpoints of the coordinator that schedules."""
        return [
            self._by_name(subjects.SUBMIT, _submit, _submit),
            self._of_runtime(subjects.TASK, self.task),
            self._of_runtime(subjects.READ_TASKS, lambda runtime, asked: read_tasks(runtime, self._queries, asked)),
            self._by_name(subjects.SUBMIT_TASKS, submit_tasks),
            self._by_name(
                subjects.CANCEL,
                lambda runtime, asked, actor: runtime.cancel(asked.id, reason=asked.reason, actor=actor),
            ),
            self._by_name(subjects.REQUEUE, lambda runtime, asked, actor: runtime.requeue(asked.id, actor=actor)),
            self._by_name(subjects.CHANGE_TASKS, self.change_tasks),
            self._of_runtime(subjects.STOP_TASK_JOB, self.stop_task_job),
            self._by_name(
                subjects.REMOVE_WORKER, lambda runtime, asked, actor: runtime.remove_worker(asked.id, actor=actor)
            ),
            self._of_runtime(subjects.REGISTER, Runtime.register),
            self._of_runtime(subjects.LEASE, Runtime.lease),
            self._of_runtime(subjects.HEARTBEAT, Runtime.heartbeat, Runtime.heartbeat),
            self._of_runtime(subjects.PART, Runtime.take_part),
            self._of_runtime(subjects.REPORT, Runtime.report, Runtime.report_short),
            self._of_runtime(subjects.HAND_BACK, Runtime.hand_back),
            self._of_runtime(subjects.WORKERS, self.workers),
            self._of_runtime(subjects.WORKER, self.worker),
            self._by_name(
                subjects.DRAIN, lambda runtime, asked, actor: runtime.drain(asked.id, drained=True, actor=actor)
            ),
            self._by_name(
                subjects.RESUME, lambda runtime, asked, actor: runtime.drain(asked.id, drained=False, actor=actor)
            ),
            self._of_runtime(subjects.STATS, self.stats),
        ]

    def _questions(self) -> list[Endpoint]:
        return [
            _question(subjects.TASKS, self.tasks),
            _question(subjects.RESULT, self.result),
            _question(subjects.ARTIFACTS, self.artifacts),
            _question(subjects.ARTIFACT, self.artifact),
            _question(subjects.AUDIT, self.audit),
            _question(subjects.LEASES, self.leases),
            _question(subjects.RUNS, self.runs),
            _question(subjects.EVENTS, self.events),
            _question(subjects.TASK_JOBS, self.task_jobs),
            _question(subjects.TASK_JOB, self.task_job),
        ]

    def _of_runtime(
        self,
        operation: Operation[Q, R],
        answer: Callable[[Runtime, Q], Awaitable[R]],
        prompt: "Callable[[Runtime, Q], asyncio.Future[R] | None] | None" = None,
    ) -> Endpoint:
        return self._by_name(
            operation,
            lambda runtime, request, _: answer(runtime, request),
            (lambda runtime, request, _: prompt(runtime, request)) if prompt is not None else None,
        )

    def _by_name(
        self,
        operation: Operation[Q, R],
        answer: Callable[[Runtime, Q, str], Awaitable[R]],
        prompt: "Callable[[Runtime, Q, str], asyncio.Future[R] | None] | None" = None,
    ) -> Endpoint:
        """Return an endpoint whose `answer` also gets who asks, for the audit; `prompt` is what the most use."""
        subject = subjects.fill(subjects.SCHEDULER, operation=operation.name)

        def actor(call: Call) -> str:
            # Only coordinators may write to the scheduler's subject, and they name whose request they pass on.
            return (call.headers.get(CALLER) if call.subject == subject else None) or call.by

        async def handle(request: Q, call: Call) -> R:
            if self.runtime is None:
                raise UnavailableError("this coordinator is not the one that schedules", remedy="try again")
            return await answer(self.runtime, request, actor(call))

        def at_once(request: Q, call: Call) -> "asyncio.Future[R] | None":
            if self.runtime is None or prompt is None:
                return None
            return prompt(self.runtime, request, actor(call))

        return Endpoint(
            replace(operation, subject=subject),
            subject,
            handle,
            at_once=AT_ONCE,
            prompt=at_once if prompt is not None else None,
        )

    def _passed_on(self, endpoint: Endpoint) -> Endpoint:
        async def handle(request: Wire, call: Call) -> Wire:
            if isinstance(request, LeaseClaim | LeaseRequest | Registration):
                _check_caller(request, call.subject)
            if self.runtime is not None:
                return await endpoint.handler(request, call)
            return await self._at_scheduler(endpoint.operation, request, call)

        def prompt(request: Wire, call: Call) -> "asyncio.Future[Any] | None":
            if isinstance(request, LeaseClaim | LeaseRequest | Registration):
                _check_caller(request, call.subject)
            return endpoint.prompt(request, call) if endpoint.prompt is not None else None

        shared = next(one for one in subjects.RUNTIME_OPERATIONS if one.name == endpoint.operation.name)
        return Endpoint(shared, shared.pattern(), handle, queue=GROUP, at_once=AT_ONCE, prompt=prompt)

    async def _at_scheduler(self, operation: Operation[Wire, Wire], request: Wire, call: Call) -> Wire:
        deadline, client = call.deadline, RpcClient(self._bus, on_behalf_of=call.by)
        backoff = Backoff(FIRST_PAUSE, MOST_PAUSE)
        while True:
            try:
                return await client.request(operation, request, deadline=deadline)
            except (NoResponderError, RemoteError) as error:
                if isinstance(error, RemoteError) and error.code is not ErrorCode.UNAVAILABLE:
                    raise
                pause = backoff.failed()
                if deadline.remaining() < pause:
                    raise UnavailableError("no coordinator schedules now", remedy="try again in ten seconds") from error
            await asyncio.sleep(pause)

    async def task(self, runtime: Runtime, request: TaskRequest) -> Task:
        """Return a task, with what it waits for."""
        found = await self._queries.task(request.id)
        return explained(await runtime.settled(), found)

    async def change_tasks(self, runtime: Runtime, request: ChangeTasksRequest, actor: str) -> ChangeTasksReply:
        """Change many tasks, or begin a job that does."""
        if request.apply and request.as_job and not request.ids:
            return await self._working().start(request, actor=actor)
        deadline = Deadline.after(subjects.CHANGE_TASKS.deadline / 2)
        return await change_tasks(runtime, self._queries, request, actor=actor, deadline=deadline)

    async def task_jobs(self, request: Empty) -> TaskJobsReply:
        """List task jobs."""
        del request
        return await listed(self._jobs_kept)

    async def task_job(self, request: TaskJobRequest) -> TaskJob:
        """Return a task job."""
        return await one(self._jobs_kept, request.id)

    async def stop_task_job(self, runtime: Runtime, request: TaskJobRequest) -> TaskJob:
        """End a task job."""
        del runtime
        return await self._working().stop(request.id)

    def _working(self) -> TaskJobs:
        if self.jobs is None:
            raise UnavailableError("this coordinator is not the one that schedules", remedy="try again")
        return self.jobs

    async def workers(self, runtime: Runtime, request: Empty) -> WorkersReply:
        """List workers."""
        del request
        return WorkersReply(workers=all_shown(await runtime.settled()))

    async def worker(self, runtime: Runtime, request: WorkerRequest) -> Worker:
        """Return a worker with its active leases."""
        state = await runtime.settled()
        held = [one.lease for one in state.leases.values() if one.lease.worker_id == request.id]
        return msgspec.structs.replace(shown(state, request.id), leases=held)

    async def tasks(self, request: TasksRequest) -> TasksReply:
        """List tasks."""
        found = await self._queries.tasks(request)
        total = sum((await self._queries.count(request)).values()) if request.count else None
        return TasksReply(tasks=found[: request.limit], more=len(found) > request.limit, total=total)

    async def result(self, request: TaskRequest) -> ResultReply:
        """Return a task's result and artifact."""
        task, result = await self._queries.task(request.id), await self._queries.result(request.id)
        if result is None or not result.artifact_id:
            return ResultReply(task=task, result=result)
        try:
            artifact = await self.artifact(ArtifactRequest(id=result.artifact_id))
        except NotFoundError:
            # Its content was deleted by retention; what is known of the task stays.
            artifact, _ = await self._queries.artifact(result.artifact_id)
        return ResultReply(task=task, result=result, artifact=artifact)

    async def artifacts(self, request: ArtifactsRequest) -> ArtifactsReply:
        """List artifacts."""
        return ArtifactsReply(artifacts=await self._queries.artifacts(task_id=request.task_id, limit=request.limit))

    async def artifact(self, request: ArtifactRequest) -> Artifact:
        """Return an artifact: the content that fits into an answer, and a URL where the store gives one."""
        found, key = await self._queries.artifact(request.id)
        if key is None:
            return found
        deadline = Deadline.after(10.0)
        url = await self._objects.share(key, seconds=SHARED, deadline=deadline)
        info = await self._objects.head(key, deadline=deadline)
        if info is None:
            raise NotFoundError(
                f"the content of artifact {request.id} was deleted: outputs over 64 KiB are kept for "
                "`coordinator.artifact_days`",
                remedy="run the task again to get a new output",
            )
        raw = await self._objects.get(key, start=request.offset, length=INLINE_ANSWER, deadline=deadline)
        content = _whole_characters(raw)
        end = request.offset + len(content.encode())
        return msgspec.structs.replace(
            found, url=url, content=content, next_offset=end if end < info.size_bytes else None
        )

    async def audit(self, request: AuditRequest) -> AuditReply:
        """List audit records."""
        found = await self._queries.audit(entity_id=request.entity_id, before=request.before, limit=request.limit)
        return AuditReply(records=found)

    async def events(self, request: EventsRequest) -> EventsReply:
        """List the events of a task that the stream still has."""
        await self._queries.task(request.id)
        told = subjects.of_task(request.id)
        page = await page_of(
            self._bus,
            streams.TASKS,
            told,
            start=request.start,
            most_bytes=INLINE_ANSWER,
            deadline=Deadline.after(subjects.EVENTS.deadline / 2),
        )
        events = [(seq, event) for seq, body in page.items if (event := decode_task_event(body))]
        return EventsReply(
            events=[msgspec.structs.replace(step, seq=seq) for seq, event in events for step in event.steps()],
            next_start=page.next.seq if page.more else None,
            resume=page.next.seq,
            first=page.first,
            life=page.next.life,
        )

    async def leases(self, request: LeasesRequest) -> LeasesReply:
        """List leases."""
        found = await self._queries.leases(request)
        return LeasesReply(leases=found[: request.limit], more=len(found) > request.limit)

    async def runs(self, request: RunsRequest) -> RunsReply:
        """List runs."""
        found = await self._queries.runs(request)
        return RunsReply(runs=found[: request.limit], more=len(found) > request.limit)

    async def stats(self, runtime: Runtime, request: Empty) -> StatsReply:
        """Count."""
        del request
        state, workers = await runtime.settled(), dict[str, int]()
        for worker in all_shown(state):
            workers[worker.status.value] = workers.get(worker.status.value, 0) + 1
        active_leases = len(state.leases)
        since = clock.stamp(clock.now() - timedelta(seconds=RATE_SECONDS))
        ended = await self._queries.ended_since(since, limit=RATE_OF)
        return StatsReply(
            ended_by_agent=dict(Counter(agent for agent, _ in ended)),
            ended_by_worker=dict(Counter(worker for _, worker in ended)),
            tasks=await self._queries.counts(),
            workers=workers,
            active_leases=active_leases,
            leader=self._name,
            answered_by=self._name,
            database=self._database,
        )


def _submit(runtime: Runtime, spec: TaskSpec, actor: str) -> "asyncio.Future[Task]":
    return runtime.submit(spec, actor=actor)


def _check_caller(claim: LeaseClaim | LeaseRequest | Registration, subject: str) -> None:
    """Raise ForbiddenError when the subject, which the server guards, is not that of the claim's worker."""
    if subject.rpartition(".")[2] != claim.worker_id:
        raise ForbiddenError(f"{subject} is not a subject of worker {claim.worker_id}", field="worker_id")


def _whole_characters(raw: bytes) -> str:
    """Return the text of `raw` without a last character that is cut off."""
    return codecs.getincrementaldecoder("utf-8")().decode(raw)


def _question(operation: Operation[Q, R], answer: Callable[[Q], Awaitable[R]]) -> Endpoint:
    async def handle(request: Q, call: Call) -> R:
        del call
        return await answer(request)

    return Endpoint(operation, operation.subject, handle, queue=GROUP, at_once=AT_ONCE)
