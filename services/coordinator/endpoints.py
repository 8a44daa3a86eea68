"""The endpoints of a coordinator. Each one answers reads from the database; the one that schedules answers the rest.

A request for the scheduler that reaches another coordinator is passed on. While no coordinator schedules, it waits for
one until its deadline.
"""

import asyncio
import codecs
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TypeVar

import msgspec

from membridge.aio.backoff import Backoff
from membridge.aio.deadline import Deadline
from membridge.bus.caller import CALLER
from membridge.bus.connection import Bus
from membridge.bus.feed import page_of
from membridge.bus.rpc import RpcClient
from membridge.bus.service import Call, Endpoint
from membridge.errors import ForbiddenError, NoResponderError, NotFoundError, RemoteError, UnavailableError
from membridge.objectstore.protocol import ObjectStore
from schemas import streams, subjects
from schemas.audit import AuditReply, AuditRequest, StatsReply
from schemas.errors import ErrorCode
from schemas.leases import LeaseClaim, LeaseRequest, LeasesReply, LeasesRequest
from schemas.node import Empty
from schemas.results import Artifact, ArtifactRequest, ArtifactsReply, ArtifactsRequest, ResultReply
from schemas.runs import RunsReply, RunsRequest
from schemas.subjects import Operation
from schemas.task_events import EventsReply, EventsRequest, decode_task_event
from schemas.tasks import Task, TaskRequest, TasksReply, TasksRequest, TaskStatus
from schemas.wire import Wire
from schemas.workers import Worker, WorkerRequest, WorkersReply
from services.coordinator.runtime import Runtime
from services.coordinator.store.queries import Queries

Q = TypeVar("Q", bound=Wire)
R = TypeVar("R", bound=Wire)

#: The queue group in which coordinators share requests.
GROUP = "coordinators"
#: Requests of one operation that are worked on at once.
AT_ONCE = 128
#: Bytes of a large output that an answer may hold; NATS takes a mebibyte.
INLINE_ANSWER = 512 << 10
#: Seconds for which the address of a large output is good.
SHARED = 3_600
#: Seconds between two tries to reach a scheduler, at first and at most.
FIRST_PAUSE, MOST_PAUSE = 0.02, 0.5


class Endpoints:
    """The endpoints of one coordinator. `runtime` is set while it schedules."""

    def __init__(self, bus: Bus, queries: Queries, objects: ObjectStore, *, name: str, database: str) -> None:
        self._bus, self._queries, self._objects = bus, queries, objects
        self._name, self._database = name, database
        self.runtime: Runtime | None = None

    def shared(self) -> list[Endpoint]:
        """Return the endpoints that all coordinators share."""
        return [*self._questions(), *(self._passed_on(endpoint) for endpoint in self.of_scheduler())]

    def of_scheduler(self) -> list[Endpoint]:
        """Return the endpoints of the coordinator that schedules."""
        return [
            self._by_name(subjects.SUBMIT, lambda runtime, spec, actor: runtime.submit(spec, actor=actor)),
            self._of_runtime(subjects.TASK, self.task),
            self._by_name(
                subjects.CANCEL,
                lambda runtime, asked, actor: runtime.cancel(asked.id, reason=asked.reason, actor=actor),
            ),
            self._by_name(subjects.REQUEUE, lambda runtime, asked, actor: runtime.requeue(asked.id, actor=actor)),
            self._by_name(
                subjects.REMOVE_WORKER, lambda runtime, asked, actor: runtime.remove_worker(asked.id, actor=actor)
            ),
            self._of_runtime(subjects.LEASE, lambda runtime, request: runtime.pulling.lease(request)),
            self._of_runtime(subjects.HEARTBEAT, lambda runtime, claim: runtime.heartbeat(claim)),
            self._of_runtime(subjects.PART, lambda runtime, part: runtime.take_part(part)),
            self._of_runtime(subjects.REPORT, lambda runtime, report: runtime.report(report)),
            self._of_runtime(subjects.HAND_BACK, lambda runtime, claim: runtime.hand_back(claim)),
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
        ]

    def _of_runtime(self, operation: Operation[Q, R], answer: Callable[[Runtime, Q], Awaitable[R]]) -> Endpoint:
        return self._by_name(operation, lambda runtime, request, _: answer(runtime, request))

    def _by_name(self, operation: Operation[Q, R], answer: Callable[[Runtime, Q, str], Awaitable[R]]) -> Endpoint:
        """Return an endpoint whose `answer` also gets who asks, for the audit."""
        subject = subjects.fill(subjects.SCHEDULER, operation=operation.name)

        async def handle(request: Q, call: Call) -> R:
            if self.runtime is None:
                raise UnavailableError("this coordinator is not the one that schedules", remedy="try again")
            # Only coordinators may write to the scheduler's subject, and they name whose request they pass on.
            passed_on = call.headers.get(CALLER) if call.subject == subject else None
            return await answer(self.runtime, request, passed_on or call.by)

        return Endpoint(replace(operation, subject=subject), subject, handle, at_once=AT_ONCE)

    def _passed_on(self, endpoint: Endpoint) -> Endpoint:
        async def handle(request: Wire, call: Call) -> Wire:
            if isinstance(request, LeaseClaim | LeaseRequest):
                _check_caller(request, call.subject)
            if self.runtime is not None:
                return await endpoint.handler(request, call)
            return await self._at_scheduler(endpoint.operation, request, call)

        shared = next(one for one in subjects.RUNTIME_OPERATIONS if one.name == endpoint.operation.name)
        return Endpoint(shared, shared.pattern(), handle, queue=GROUP, at_once=AT_ONCE)

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
        live = runtime.live_tasks.tasks.get(found.id)
        if live is None or live.status is not TaskStatus.QUEUED:
            return found
        reasons = (live.reason, runtime.scheduler.explain(live))
        return msgspec.structs.replace(found, reason="; ".join(reason for reason in reasons if reason))

    async def workers(self, runtime: Runtime, request: Empty) -> WorkersReply:
        """List workers."""
        del request
        return WorkersReply(workers=runtime.workers.all())

    async def worker(self, runtime: Runtime, request: WorkerRequest) -> Worker:
        """Return a worker with its active leases."""
        held = [one.lease for one in runtime.live_tasks.leases.values() if one.lease.worker_id == request.id]
        return msgspec.structs.replace(runtime.workers.get(request.id), leases=held)

    async def tasks(self, request: TasksRequest) -> TasksReply:
        """List tasks."""
        found = await self._queries.tasks(
            status=request.status, context_id=request.context_id, limit=request.limit + 1, before=request.before
        )
        return TasksReply(tasks=found[: request.limit], more=len(found) > request.limit)

    async def result(self, request: TaskRequest) -> ResultReply:
        """Return a task's result and artifact."""
        task, result = await self._queries.task(request.id), await self._queries.result(request.id)
        artifact = (
            await self.artifact(ArtifactRequest(id=result.artifact_id)) if result and result.artifact_id else None
        )
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
            raise NotFoundError(f"the content of artifact {request.id} is gone from the object store")
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
            events=[msgspec.structs.replace(event, seq=seq) for seq, event in events],
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
        workers: dict[str, int] = {}
        for worker in runtime.workers.all():
            workers[worker.status.value] = workers.get(worker.status.value, 0) + 1
        return StatsReply(
            tasks=await self._queries.counts(),
            workers=workers,
            active_leases=len(runtime.live_tasks.leases),
            leader=self._name,
            answered_by=self._name,
            database=self._database,
        )


def _check_caller(claim: LeaseClaim | LeaseRequest, subject: str) -> None:
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
