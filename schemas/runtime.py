"""The task runtime: tasks, the leases they run under, results, artifacts, workers, and the record of every change.

Field names are the contract with front ends and stay. Instants are ISO 8601 in UTC; durations say their unit.
"""

from enum import StrEnum
from typing import Annotated

from msgspec import Meta

from schemas.wire import MAX_BODY_BYTES, MOST_WHOLE, Instant, Line, Number, Sentence, Whole, Wire, WireError, decode

Uuid = Annotated[str, Meta(pattern=r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\Z")]
#: What somebody calls a task or an artifact: whatever it is, one that there is not is not found.
Named = Annotated[str, Meta(min_length=1, max_length=64)]
#: What front ends call a context or an agent: any text.
FreeName = Annotated[str, Meta(min_length=1, max_length=200)]
#: What names a worker: one token of a subject.
Slug = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}\Z")]
Label = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:=-]{0,62}\Z")]
Labels = Annotated[list[Label], Meta(max_length=32)]
#: Largest prompt in characters; the coordinator's own bound, in bytes, is a setting.
Prompt = Annotated[str, Meta(min_length=1, max_length=8_388_608)]
Hint = Annotated[str, Meta(min_length=1, max_length=1_024)]
#: Why a task is where it is: what its program said, at most.
Reason = Annotated[str, Meta(max_length=65_536)]
Count = Number
Limit = Annotated[int, Meta(ge=1, le=1_000)]


class OutputFormat(StrEnum):
    """What a task's output has to be."""

    JSON = "json"
    TEXT = "text"


class TaskStatus(StrEnum):
    """Where a task is. `failed` waits for its next attempt; `completed` and `dead` are ends."""

    QUEUED = "queued"
    LEASED = "leased"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    DEAD = "dead"


class LeaseStatus(StrEnum):
    """What became of a lease."""

    ACTIVE = "active"
    EXPIRED = "expired"
    RELEASED = "released"
    FAILED = "failed"


class ResultStatus(StrEnum):
    """How an attempt ended."""

    SUCCESS = "success"
    ERROR = "error"


class ArtifactType(StrEnum):
    """What an artifact is."""

    LLM_RESULT = "LLM_RESULT"


class WorkerStatus(StrEnum):
    """Whether a worker takes tasks. `syncing`: it finishes what it has and takes no more."""

    ONLINE = "online"
    OFFLINE = "offline"
    SYNCING = "syncing"
    ERROR = "error"
    UNKNOWN = "unknown"


class Policy(Wire, frozen=True, kw_only=True):
    """Bounds of one attempt: seconds it may take, and tokens that its context may have, 0 for the worker's bound."""

    timeout_sec: Annotated[int, Meta(ge=1, le=3_600)] = 120
    budget: Count = 0


class Work(Wire, frozen=True, kw_only=True):
    """What is to be done, in whatever context."""

    agent_slug: FreeName
    prompt: Prompt
    context_hints: Annotated[list[Hint], Meta(max_length=64)] = []
    policy: Policy = Policy()
    desired_format: OutputFormat = OutputFormat.TEXT
    max_attempts: Annotated[int, Meta(ge=1, le=10)] = 3
    #: The larger, the sooner.
    priority: Annotated[int, Meta(ge=0, le=9)] = 5
    not_before: Instant | None = None
    idempotency_key: Annotated[str, Meta(min_length=1, max_length=128)] | None = None
    labels: Labels = []


class TaskSpec(Work, frozen=True, kw_only=True):
    """A task to submit. A second one with the same `idempotency_key` is the first one.

    Tasks of one context run in order and continue one session; without `context_id` a task has a context of its own.
    """

    context_id: FreeName | None = None


class Task(Work, frozen=True, kw_only=True):
    """A task as it is now. `reason` says why it waits, failed or ended; `interruptions` burn no attempt."""

    id: Uuid
    context_id: FreeName
    status: TaskStatus
    created_at: Instant
    updated_at: Instant
    lease_id: Uuid | None = None
    worker_id: Slug | None = None
    attempts: Count = 0
    interruptions: Count = 0
    reason: Reason = ""


class Lease(Wire, frozen=True, kw_only=True):
    """The right of one worker to one attempt, until it expires."""

    id: Uuid
    task_id: Uuid
    worker_id: Slug
    started_at: Instant
    expires_at: Instant
    ttl_seconds: Annotated[int, Meta(ge=1, le=1_000_000)] = 300
    status: LeaseStatus = LeaseStatus.ACTIVE
    last_heartbeat: Instant
    context_id: FreeName


class Metrics(Wire, frozen=True, kw_only=True):
    """What an attempt took."""

    duration_ms: Count
    tokens_used: Count | None = None


class Result(Wire, frozen=True, kw_only=True):
    """How a task's accepted attempt ended: success has an output, error a message."""

    id: Uuid
    task_id: Uuid
    worker_id: Slug
    artifact_id: Uuid | None = None
    status: ResultStatus
    output: str | None = None
    error_message: str | None = None
    metrics: Metrics
    completed_at: str


class Artifact(Wire, frozen=True, kw_only=True):
    """What a task made; never changed. Small content is in `content`, large is fetched from `url` while that lives."""

    id: Uuid
    task_id: Uuid
    job_id: Uuid
    type: ArtifactType = ArtifactType.LLM_RESULT
    created_at: str
    finalized: bool = True
    url: str | None = None
    entity_refs: list[str] = []
    tags: list[str] = []
    content: str | None = None
    #: Where the rest of the content begins, when one answer does not hold it.
    next_offset: int | None = None


class Capabilities(Wire, frozen=True, kw_only=True):
    """What a worker can do: whether it has the `claude` program, how many tasks at once, and what it is good for."""

    claude_cli: bool = False
    max_concurrency: Annotated[int, Meta(ge=1, le=32)] = 1
    labels: Labels = []


class WorkerPresence(Wire, frozen=True, kw_only=True):
    """A node's word that it takes tasks, within its presence; `detail` says why it does not."""

    capabilities: Capabilities
    status: WorkerStatus = WorkerStatus.ONLINE
    active_leases: Count = 0
    detail: Sentence = ""


class Worker(Wire, frozen=True, kw_only=True):
    """A worker as the coordinator knows it; who asks for one gets its active leases too."""

    id: Slug
    node_id: Slug
    status: WorkerStatus = WorkerStatus.UNKNOWN
    capabilities: Capabilities = Capabilities()
    last_heartbeat: str = ""
    ip_addrs: list[str] = []
    obs_count: Whole = 0
    db_sha: str = ""
    registered_at: str = ""
    active_leases: Count = 0
    agent_version: str = ""
    os_info: str = ""
    install_method: str = ""
    detail: str = ""
    leases: list[Lease] = []


class AuditRecord(Wire, frozen=True, kw_only=True):
    """One change: what happened to what, by whom, and why."""

    id: int
    timestamp: str
    action: str
    entity_type: str
    entity_id: str
    actor: str
    detail: str = ""


class TaskRequest(Wire, frozen=True, kw_only=True):
    """Names a task."""

    id: Named
    reason: Annotated[str, Meta(max_length=512)] = ""


class TasksRequest(Wire, frozen=True, kw_only=True):
    """Which tasks to list, newest first; `before` is the id after which the last page ended."""

    status: TaskStatus | None = None
    context_id: FreeName | None = None
    limit: Limit = 100
    before: Named | None = None


class TasksReply(Wire, frozen=True, kw_only=True):
    """Tasks, newest first, their prompts cut to 200 characters."""

    tasks: list[Task] = []
    more: bool = False


class ResultReply(Wire, frozen=True, kw_only=True):
    """A task with its result, when it has one, and its artifact."""

    task: Task
    result: Result | None = None
    artifact: Artifact | None = None


class Order(Wire, frozen=True, kw_only=True):
    """What a worker is asked to run: the task and its lease; `resumes` is the context's CLI session, if it has one."""

    task: Task
    lease: Lease
    resumes: Line | None = None


class Accepted(Wire, frozen=True, kw_only=True):
    """Whether the worker took the order, and why not."""

    accepted: bool
    reason: Sentence = ""


class LeaseRequest(Wire, frozen=True, kw_only=True):
    """A worker that is no node asks for a task: for `task_id`, or for the next one whose labels it has.

    The same `nonce` again gives the same lease again, as after a lost answer.
    """

    worker_id: Slug
    task_id: Named | None = None
    labels: Labels = []
    nonce: Named | None = None


class Leased(Wire, frozen=True, kw_only=True):
    """The task and its lease, or why there is none now."""

    order: Order | None = None
    reason: Line = ""


class LeaseClaim(Wire, frozen=True, kw_only=True):
    """Speaks for a lease: that it is worked on, or that it is handed back (`reason`)."""

    lease_id: Uuid
    task_id: Uuid
    worker_id: Slug
    reason: Annotated[str, Meta(max_length=512)] = ""


class Report(LeaseClaim, frozen=True, kw_only=True):
    """An attempt's end, under its lease. `session` is the CLI's, to be resumed by the context's next task."""

    status: ResultStatus
    output: Annotated[str, Meta(max_length=MAX_BODY_BYTES)] | None = None
    error_message: Reason | None = None
    metrics: Metrics
    #: How many parts of the output were sent before, because one message does not hold it.
    parts: Annotated[int, Meta(ge=0, le=1_024)] = 0
    session: Annotated[str, Meta(max_length=128)] | None = None


class OutputPart(LeaseClaim, frozen=True, kw_only=True):
    """A piece of an output that is too large for one message, sent before its report; `index` counts from 0."""

    index: Annotated[int, Meta(ge=0, lt=1_024)]
    text: Annotated[str, Meta(max_length=524_288)]


class WorkerRequest(Wire, frozen=True, kw_only=True):
    """Names a worker."""

    id: Slug


class WorkersReply(Wire, frozen=True, kw_only=True):
    """Workers, by id."""

    workers: list[Worker] = []


class LeasesRequest(Wire, frozen=True, kw_only=True):
    """Which leases to list, newest first: the active ones, those of another status, or all for null.

    `before` is the id after which the last page ended.
    """

    status: LeaseStatus | None = LeaseStatus.ACTIVE
    task_id: Named | None = None
    worker_id: Slug | None = None
    limit: Limit = 100
    before: Named | None = None


class LeasesReply(Wire, frozen=True, kw_only=True):
    """Leases, newest first."""

    leases: list[Lease] = []
    more: bool = False


class RunStatus(StrEnum):
    """How a run stands. `returned`: the task was handed back or cancelled, and there is no result."""

    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    EXPIRED = "expired"
    RETURNED = "returned"


class Run(Wire, frozen=True, kw_only=True):
    """One attempt at a task, under the lease of the same id, with what its result says."""

    id: Uuid
    task_id: Uuid
    worker_id: Slug
    context_id: FreeName
    status: RunStatus
    started_at: Instant
    ended_at: Instant | None = None
    duration_ms: Whole | None = None
    tokens_used: Whole | None = None
    error_message: str | None = None
    artifact_id: Uuid | None = None


class RunsRequest(Wire, frozen=True, kw_only=True):
    """Which runs to list, newest first; `before` is the id after which the last page ended."""

    status: RunStatus | None = None
    task_id: Named | None = None
    worker_id: Slug | None = None
    limit: Limit = 100
    before: Named | None = None


class RunsReply(Wire, frozen=True, kw_only=True):
    """Runs, newest first."""

    runs: list[Run] = []
    more: bool = False


class ArtifactsRequest(Wire, frozen=True, kw_only=True):
    """Which artifacts to list, newest first."""

    task_id: Named | None = None
    limit: Limit = 100


class ArtifactRequest(Wire, frozen=True, kw_only=True):
    """Names an artifact, and where in its content to begin, in bytes."""

    id: Named
    offset: Whole = 0


class ArtifactsReply(Wire, frozen=True, kw_only=True):
    """Artifacts, newest first, without their content."""

    artifacts: list[Artifact] = []


class AuditRequest(Wire, frozen=True, kw_only=True):
    """Which records to list, newest first."""

    entity_id: Annotated[str, Meta(max_length=64)] | None = None
    limit: Limit = 100
    before: Number | None = None


class AuditReply(Wire, frozen=True, kw_only=True):
    """Records, newest first."""

    records: list[AuditRecord] = []


class StatsReply(Wire, frozen=True, kw_only=True):
    """How much there is of everything; `leader` schedules, `answered_by` is who was asked."""

    tasks: dict[str, int] = {}
    workers: dict[str, int] = {}
    active_leases: Count = 0
    leader: str = ""
    answered_by: str = ""
    database: str = ""


class WorkerStatusReply(Wire, frozen=True, kw_only=True):
    """A worker's own account: its presence and the tasks it runs."""

    presence: WorkerPresence
    running: Annotated[list[Uuid], Meta(max_length=1_024)] = []


class TaskEventKind(StrEnum):
    """What a task's event is: a change of status, a step of the worker, a line of the program."""

    STATUS = "status"
    PROGRESS = "progress"
    STDERR = "stderr"


class TaskEvent(Wire, frozen=True, kw_only=True):
    """Something happened to a task. `seq` is its place in the stream, 0 in an event as it comes."""

    task_id: Uuid
    kind: TaskEventKind
    at: str
    text: str
    status: TaskStatus | None = None
    attempt: Count = 0
    seq: Whole = 0


def decode_task_event(body: bytes) -> TaskEvent | None:
    """Return the event in `body`, None when it is none that this version knows."""
    try:
        return decode(body, TaskEvent)
    except WireError:
        return None


class EventsRequest(Wire, frozen=True, kw_only=True):
    """Whose events to list, oldest first; `start` is where an earlier page ended."""

    id: Named
    start: Annotated[int, Meta(ge=1, le=MOST_WHOLE)] = 1


class EventsReply(Wire, frozen=True, kw_only=True):
    """Events, oldest first; `next_start` begins the next page, None after the last.

    `resume` is where to go on when there is more to read later. The stream keeps nothing before `first`; one of another
    `life` was made anew and counts from one again.
    """

    events: list[TaskEvent] = []
    next_start: int | None = None
    resume: Annotated[int, Meta(ge=1, le=MOST_WHOLE)] = 1
    first: Whole = 0
    life: str = ""
