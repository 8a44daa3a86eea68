"""`/api/runtime`: tasks, their leases, runs, results and audit. A worker outside the nodes can live on it."""

import time
from collections.abc import Callable

from membridge import __version__
from membridge.errors import MembridgeError
from schemas import subjects
from schemas.audit import AuditReply, AuditRequest, StatsReply
from schemas.errors import ErrorCode
from schemas.gateway import (
    MOST_BODY,
    CompleteTask,
    ConnectionTest,
    HeartbeatTask,
    LeaseTask,
    RegisterWorker,
    RuntimeConfig,
    RuntimeHealth,
    SetRuntimeConfig,
)
from schemas.leases import Lease, LeaseClaim, Leased, LeaseRequest, LeasesReply, LeasesRequest
from schemas.node import Empty
from schemas.results import Artifact, ArtifactRequest, ArtifactsReply, ArtifactsRequest, ResultReply
from schemas.runs import RunsReply, RunsRequest
from schemas.subjects import Operation
from schemas.task_changes import ChangeTasksReply, ChangeTasksRequest, TaskJob, TaskJobRequest, TaskJobsReply
from schemas.task_events import EventsReply, EventsRequest
from schemas.tasks import (
    Task,
    TaskRequest,
    TaskSpec,
    TasksReply,
    TasksRequest,
)
from schemas.wire import Wire
from schemas.workers import Registration, Worker, WorkerRequest, WorkersReply
from services.gateway.callers import CONFIGURE, READ_TASKS, WRITE_TASKS
from services.gateway.federation import Federated
from services.gateway.runtime import Runtime
from services.gateway.together import Together
from services.web.routes import AnyRoute, Call, Endpoint, Method, Route

GET, POST, DELETE = Method.GET, Method.POST, Method.DELETE
_AT = "/api/runtime"
_TASK = f"{_AT}/llm-tasks/{{id}}"
_MISSING = (ErrorCode.NOT_FOUND,)
#: What a coordinator answers where the state of a task or worker does not allow it.
_STATE = (ErrorCode.NOT_FOUND, ErrorCode.CONFLICT, ErrorCode.LEASE_LOST)
_CONTENT = (ErrorCode.NOT_FOUND, ErrorCode.CORRUPT_OBJECT)
#: Seconds that `health` waits for a coordinator.
HEALTH_WAITS = 1.0

HEALTH = Route(
    "runtime_health", GET, f"{_AT}/health", Empty, RuntimeHealth, "Whether tasks can be run.", None, deadline=5.0
)
CONFIG = Route(
    "runtime_config", GET, f"{_AT}/config", Empty, RuntimeConfig, "The server that /api/membridge is passed on to.",
    READ_TASKS,
)  # fmt: skip
SET_CONFIG = Route(
    "set_runtime_config", POST, f"{_AT}/config", SetRuntimeConfig, RuntimeConfig,
    "Pass /api/membridge on to another server.", CONFIGURE,
)  # fmt: skip
TEST = Route(
    "test_connection", POST, f"{_AT}/test-connection", Empty, ConnectionTest, "Whether the configured server answers.",
    None,
)  # fmt: skip
WORKERS = Route("workers", GET, f"{_AT}/workers", Empty, WorkersReply, "The workers.", READ_TASKS)
REGISTER = Route(
    "register_worker", POST, f"{_AT}/workers", RegisterWorker, Worker, "Register a worker that leases its tasks.",
    WRITE_TASKS, status=201, errors=(ErrorCode.CONFLICT,),
)  # fmt: skip
WORKER = Route(
    "worker", GET, f"{_AT}/workers/{{id}}", WorkerRequest, Worker, "A worker with its active leases.", READ_TASKS,
    errors=_MISSING,
)  # fmt: skip
REMOVE_WORKER = Route(
    "remove_worker", DELETE, f"{_AT}/workers/{{id}}", WorkerRequest, Worker, "Forget a worker that is gone.",
    WRITE_TASKS, errors=_STATE,
)  # fmt: skip
DRAIN = Route(
    "drain_worker", POST, f"{_AT}/workers/{{id}}/drain", WorkerRequest, Worker, "Give a worker no new tasks.",
    WRITE_TASKS, errors=_STATE,
)  # fmt: skip
RESUME = Route(
    "resume_worker", POST, f"{_AT}/workers/{{id}}/resume", WorkerRequest, Worker, "Give a worker tasks again.",
    WRITE_TASKS, errors=_STATE,
)  # fmt: skip
SUBMIT = Route(
    "submit_task", POST, f"{_AT}/llm-tasks", TaskSpec, Task, "Submit a task.", WRITE_TASKS, status=201,
    most_bytes=MOST_BODY,
)  # fmt: skip
TASKS = Route("tasks", GET, f"{_AT}/llm-tasks", TasksRequest, TasksReply, "Tasks, newest first.", READ_TASKS)
TASK = Route("task", GET, _TASK, TaskRequest, Task, "A task as it is now.", READ_TASKS, errors=_MISSING)
RESULT = Route(
    "task_result", GET, f"{_TASK}/result", TaskRequest, ResultReply, "A task with its result and artifact.",
    READ_TASKS, errors=_CONTENT,
)  # fmt: skip
TASK_EVENTS = Route(
    "task_events", GET, f"{_TASK}/events", EventsRequest, EventsReply, "What happened to a task, oldest first.",
    READ_TASKS, errors=_MISSING,
)  # fmt: skip
LEASE = Route(
    "lease_task", POST, f"{_TASK}/lease", LeaseTask, Leased, "Lease a task to a worker.", WRITE_TASKS, errors=_STATE
)
LEASE_NEXT = Route(
    "lease_next_task", POST, f"{_AT}/leases", LeaseRequest, Leased, "Lease the next task that a worker may have.",
    WRITE_TASKS, errors=_STATE,
)  # fmt: skip
HEARTBEAT = Route(
    "heartbeat_task", POST, f"{_TASK}/heartbeat", HeartbeatTask, Lease, "Renew a task's lease.", WRITE_TASKS,
    errors=_STATE,
)  # fmt: skip
COMPLETE = Route(
    "complete_task", POST, f"{_TASK}/complete", CompleteTask, ResultReply, "End an attempt with its result.",
    WRITE_TASKS, most_bytes=MOST_BODY, deadline=60.0, errors=(*_STATE, ErrorCode.CORRUPT_OBJECT, ErrorCode.DISK_FULL),
)  # fmt: skip
REQUEUE = Route(
    "requeue_task", POST, f"{_TASK}/requeue", TaskRequest, Task, "Queue a failed or dead task again.", WRITE_TASKS,
    errors=_STATE,
)  # fmt: skip
CANCEL = Route(
    "cancel_task", POST, f"{_TASK}/cancel", TaskRequest, Task, "End a task and stop its worker.", WRITE_TASKS,
    errors=_STATE,
)  # fmt: skip
CHANGE_TASKS = Route(
    "change_tasks", POST, f"{_AT}/task-changes", ChangeTasksRequest, ChangeTasksReply,
    "Cancel or requeue tasks of a list or a filter; without `apply` say which.", WRITE_TASKS, deadline=60.0,
    most_bytes=MOST_BODY,
)  # fmt: skip
TASK_JOBS = Route(
    "task_jobs", GET, f"{_AT}/task-jobs", Empty, TaskJobsReply, "Changes of many tasks, newest first.", READ_TASKS
)
TASK_JOB = Route(
    "task_job", GET, f"{_AT}/task-jobs/{{id}}", TaskJobRequest, TaskJob, "A change of many tasks with its progress.",
    READ_TASKS, errors=_MISSING,
)  # fmt: skip
STOP_TASK_JOB = Route(
    "stop_task_job", POST, f"{_AT}/task-jobs/{{id}}/stop", TaskJobRequest, TaskJob,
    "End a change of many tasks; what it changed stays.", WRITE_TASKS, errors=_MISSING,
)  # fmt: skip
LEASES = Route(
    "leases", GET, f"{_AT}/leases", LeasesRequest, LeasesReply, "Leases, newest first; the active ones by default.",
    READ_TASKS,
)  # fmt: skip
RUNS = Route("runs", GET, f"{_AT}/runs", RunsRequest, RunsReply, "Attempts at tasks, newest first.", READ_TASKS)
ARTIFACTS = Route(
    "artifacts", GET, f"{_AT}/artifacts", ArtifactsRequest, ArtifactsReply, "Artifacts, newest first.", READ_TASKS
)
ARTIFACT = Route(
    "artifact", GET, f"{_AT}/artifacts/{{id}}", ArtifactRequest, Artifact, "An artifact with its content.",
    READ_TASKS, errors=_CONTENT,
)  # fmt: skip
AUDIT = Route("runtime_audit", GET, f"{_AT}/audit", AuditRequest, AuditReply, "Changes, newest first.", READ_TASKS)
STATS = Route("runtime_stats", GET, f"{_AT}/stats", Empty, StatsReply, "Counts.", READ_TASKS)

#: Routes whose request is that of an operation, and whose answer is the operation's.
RELAYED: tuple[tuple[AnyRoute, Operation[Wire, Wire]], ...] = (
    (WORKERS, subjects.WORKERS),
    (WORKER, subjects.WORKER),
    (REMOVE_WORKER, subjects.REMOVE_WORKER),
    (DRAIN, subjects.DRAIN),
    (RESUME, subjects.RESUME),
    (TASKS, subjects.TASKS),
    (RESULT, subjects.RESULT),
    (TASK_EVENTS, subjects.EVENTS),
    (REQUEUE, subjects.REQUEUE),
    (CANCEL, subjects.CANCEL),
    (CHANGE_TASKS, subjects.CHANGE_TASKS),
    (TASK_JOBS, subjects.TASK_JOBS),
    (TASK_JOB, subjects.TASK_JOB),
    (STOP_TASK_JOB, subjects.STOP_TASK_JOB),
    (LEASES, subjects.LEASES),
    (RUNS, subjects.RUNS),
    (ARTIFACTS, subjects.ARTIFACTS),
    (ARTIFACT, subjects.ARTIFACT),
    (AUDIT, subjects.AUDIT),
    (STATS, subjects.STATS),
)


def endpoints(
    runtime: Runtime, together: Together, federated: Federated, connections: Callable[[], dict[str, str]]
) -> list[Endpoint]:
    """Return the endpoints of tasks. `connections` says what else the gateway is connected to."""
    began = time.monotonic()

    async def health(_: Empty, call: Call) -> RuntimeHealth:
        storage, coordinator = "unknown", "connected"
        soon = call.deadline.sooner(HEALTH_WAITS)
        try:
            stats = await runtime.ask_within(subjects.STATS, Empty(), call, deadline=soon)
            storage = stats.database.partition(":")[0].partition("+")[0] or storage
        except MembridgeError as error:
            coordinator = error.code.value
        return RuntimeHealth(
            status="ok" if coordinator == "connected" else "degraded",
            service="membridge-runtime",
            version=__version__,
            storage_type=storage,
            uptime_seconds=round(time.monotonic() - began, 3),
            connections={"coordinator": coordinator, **connections()},
        )

    async def register(request: RegisterWorker, call: Call) -> Worker:
        wanted = Registration(worker_id=request.id, labels=request.capabilities.labels)
        return await runtime.ask(subjects.REGISTER, wanted, call, worker=request.id)

    async def lease(request: LeaseTask, call: Call) -> Leased:
        wanted = LeaseRequest(
            worker_id=request.worker_id, task_id=request.id, labels=request.labels, nonce=request.nonce
        )
        return await runtime.ask(subjects.LEASE, wanted, call, worker=request.worker_id)

    async def lease_next(request: LeaseRequest, call: Call) -> Leased:
        return await runtime.ask(subjects.LEASE, request, call, worker=request.worker_id)

    async def heartbeat(request: HeartbeatTask, call: Call) -> Lease:
        claim = LeaseClaim(lease_id=request.lease_id, task_id=request.id, worker_id=request.worker_id)
        return await runtime.ask(subjects.HEARTBEAT, claim, call, worker=request.worker_id)

    async def complete(request: CompleteTask, call: Call) -> ResultReply:
        await runtime.complete(request, call)
        return await runtime.ask(subjects.RESULT, TaskRequest(id=request.id), call)

    return [
        HEALTH.bind(health),
        CONFIG.bind(federated.show),
        SET_CONFIG.bind(federated.set),
        TEST.bind(federated.test),
        SUBMIT.bind(together.submit),
        TASK.bind(together.task),
        REGISTER.bind(register),
        LEASE.bind(lease),
        LEASE_NEXT.bind(lease_next),
        HEARTBEAT.bind(heartbeat),
        COMPLETE.bind(complete),
        *(_relayed(runtime, route, operation) for route, operation in RELAYED),
    ]


def _relayed(runtime: Runtime, route: AnyRoute, operation: Operation[Wire, Wire]) -> Endpoint:
    async def answer(request: Wire, call: Call) -> Wire:
        return await runtime.ask(operation, request, call)

    return route.bind(answer)
