"""Every subject this system speaks, declared once.

An `Operation` ties an endpoint's name, its subject, both wire types and its deadline together. The bus, the permission
check, the generated API page and `$SRV.INFO` all read the same object; nothing outside this module spells a subject.
"""

import string
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Generic, TypeVar

from schemas.access import (
    AccessLogReply,
    AdmitRequest,
    EnrolReply,
    EnrolRequest,
    InvitationInfo,
    InvitationRequest,
    InvitationsReply,
    InviteReply,
    InviteRequest,
    MembersReply,
    RevokeRequest,
    StoreConfig,
)
from schemas.audit import AuditReply, AuditRequest, StatsReply
from schemas.commits import (
    DiffReply,
    DiffRequest,
    ExtractReply,
    ExtractRequest,
    GcReply,
    GcRequest,
    HistoryReply,
    HistoryRequest,
    ReadExtractedReply,
    ReadExtractedRequest,
    RecoverReply,
    RecoverRequest,
    RestoreBackupReply,
    RestoreBackupRequest,
    RestoreReply,
    RestoreRequest,
    TagAction,
    TagsReply,
    VerifyReply,
    VerifyRequest,
)
from schemas.gateway_nats import GatewayStatus
from schemas.identity import token
from schemas.leadership import LeadershipReply, SelectRequest
from schemas.leases import (
    Accepted,
    Lease,
    LeaseClaim,
    Leased,
    LeaseRequest,
    LeasesReply,
    LeasesRequest,
    OrderAnswers,
    Orders,
    OutputPart,
    Report,
)
from schemas.memories import (
    ForgetReply,
    ForgetRequest,
    MemoriesReply,
    MemoriesRequest,
    MemoryReply,
    MemoryRequest,
)
from schemas.node import (
    AddProjectRequest,
    DoctorReply,
    Empty,
    Job,
    JobRequest,
    JobsReply,
    NodesReply,
    ProjectsReply,
    RemoveProjectReply,
    RemoveProjectRequest,
    Revocation,
    StatusReply,
)
from schemas.proposal import ConflictsReply, QuarantineAction, QuarantineReply, UnsyncedReply, UnsyncedRequest
from schemas.results import Artifact, ArtifactRequest, ArtifactsReply, ArtifactsRequest, ResultReply
from schemas.runs import RunsReply, RunsRequest
from schemas.snapshot import BackupsReply, PullReply, PullRequest, PushReply, PushRequest
from schemas.task_changes import ChangeTasksReply, ChangeTasksRequest, TaskJob, TaskJobRequest, TaskJobsReply
from schemas.task_events import EventsReply, EventsRequest
from schemas.tasks import (
    ReadTasksReply,
    ReadTasksRequest,
    SubmitTasksReply,
    SubmitTasksRequest,
    Task,
    TaskRequest,
    TaskSpec,
    TasksReply,
    TasksRequest,
)
from schemas.wire import Wire
from schemas.workers import Registration, Worker, WorkerRequest, WorkersReply, WorkerStatusReply

Q_co = TypeVar("Q_co", bound=Wire, covariant=True)
R_co = TypeVar("R_co", bound=Wire, covariant=True)


class Impact(StrEnum):
    """What an operator risks by calling an operation."""

    READ = "read"
    WRITE = "write"


@dataclass(frozen=True, slots=True)
class Operation(Generic[Q_co, R_co]):
    """A request that some process answers. `subject` is a template whose fields are one token each."""

    name: str
    subject: str
    request: type[Q_co]
    reply: type[R_co]
    #: Seconds a caller waits at most.
    deadline: float
    impact: Impact
    #: The field that makes a request large, named when one is too large.
    largest: str | None = None

    def at(self, **tokens: str) -> str:
        """Return the concrete subject; raise InvalidTokenError for a token that could widen it."""
        return fill(self.subject, **tokens)

    def pattern(self) -> str:
        """Return the subject with every field as a wildcard."""
        return wildcard(self.subject)

    def to_primary(self) -> "Operation[Q_co, R_co]":
        """Return the same operation, addressed to the primary."""
        return replace(self, subject=f"membridge.{{project}}.primary.{self.name}")


def fill(template: str, **tokens: str) -> str:
    """Return the subject `template` with its fields filled; every value is checked to be one token."""
    return template.format_map({name: token(value, name) for name, value in tokens.items()})


def wildcard(template: str) -> str:
    """Return the subject `template` with `*` for each field."""
    fields = [name for _, name, _, _ in string.Formatter().parse(template) if name]
    return template.format_map(dict.fromkeys(fields, "*"))


def _on_node(
    name: str, request: type[Q_co], reply: type[R_co], *, deadline: float, impact: Impact
) -> Operation[Q_co, R_co]:
    return Operation(name, f"membridge.{{project}}.node.{{node}}.{name}", request, reply, deadline, impact)


STATUS = _on_node("status", Empty, StatusReply, deadline=5.0, impact=Impact.READ)
PUSH = _on_node("push", PushRequest, PushReply, deadline=600.0, impact=Impact.WRITE)
PULL = _on_node("pull", PullRequest, PullReply, deadline=600.0, impact=Impact.WRITE)
DOCTOR = _on_node("doctor", Empty, DoctorReply, deadline=60.0, impact=Impact.READ)
HISTORY = _on_node("history", HistoryRequest, HistoryReply, deadline=30.0, impact=Impact.READ)
DIFF = _on_node("diff", DiffRequest, DiffReply, deadline=600.0, impact=Impact.READ)
EXTRACT = _on_node("extract", ExtractRequest, ExtractReply, deadline=600.0, impact=Impact.READ)
READ_EXTRACTED = _on_node("read_extracted", ReadExtractedRequest, ReadExtractedReply, deadline=15.0, impact=Impact.READ)
RESTORE = _on_node("restore", RestoreRequest, RestoreReply, deadline=600.0, impact=Impact.WRITE)
VERIFY = _on_node("verify", VerifyRequest, VerifyReply, deadline=600.0, impact=Impact.READ)
TAG = _on_node("tag", TagAction, TagsReply, deadline=120.0, impact=Impact.WRITE)
RECOVER = _on_node("recover", RecoverRequest, RecoverReply, deadline=600.0, impact=Impact.WRITE)
GC = _on_node("gc", GcRequest, GcReply, deadline=600.0, impact=Impact.WRITE)
BACKUPS = _on_node("backups", Empty, BackupsReply, deadline=10.0, impact=Impact.READ)
RESTORE_BACKUP = _on_node(
    "restore_backup", RestoreBackupRequest, RestoreBackupReply, deadline=600.0, impact=Impact.WRITE
)
CONFLICTS = _on_node("conflicts", Empty, ConflictsReply, deadline=10.0, impact=Impact.READ)
QUARANTINE = _on_node("quarantine", QuarantineAction, QuarantineReply, deadline=120.0, impact=Impact.WRITE)
UNSYNCED = _on_node("unsynced", UnsyncedRequest, UnsyncedReply, deadline=60.0, impact=Impact.READ)
MEMORIES = _on_node("memories", MemoriesRequest, MemoriesReply, deadline=30.0, impact=Impact.READ)
MEMORY = _on_node("memory", MemoryRequest, MemoryReply, deadline=10.0, impact=Impact.READ)
FORGET = _on_node("forget", ForgetRequest, ForgetReply, deadline=600.0, impact=Impact.WRITE)
JOBS = _on_node("jobs", Empty, JobsReply, deadline=10.0, impact=Impact.READ)
JOB_BY_ID = _on_node("job", JobRequest, Job, deadline=10.0, impact=Impact.READ)

#: Answered by the node they name, for one project.
NODE_OPERATIONS: tuple[Operation[Wire, Wire], ...] = (
    STATUS, PUSH, PULL, DOCTOR, HISTORY, DIFF, EXTRACT, READ_EXTRACTED, RESTORE, VERIFY, TAG, GC, RECOVER, BACKUPS,
    RESTORE_BACKUP, CONFLICTS, QUARANTINE, UNSYNCED, MEMORIES, MEMORY, FORGET, JOBS, JOB_BY_ID,
)  # fmt: skip

LEADERSHIP_GET = Operation(
    "get", "membridge.{project}.leadership.get", Empty, LeadershipReply, deadline=5.0, impact=Impact.READ
)
LEADERSHIP_SELECT = Operation(
    "select",
    "membridge.{project}.leadership.select",
    SelectRequest,
    LeadershipReply,
    deadline=30.0,
    impact=Impact.WRITE,
)
LEADERSHIP_RESIGN = Operation(
    "resign", "membridge.{project}.leadership.resign", Empty, LeadershipReply, deadline=30.0, impact=Impact.WRITE
)
#: Which machines are present, for users that may not read their entries.
NODES = Operation("nodes", "membridge.{project}.nodes", Empty, NodesReply, deadline=5.0, impact=Impact.READ)

#: Answered by any node of the project, and the last one by its primary.
LEADERSHIP_OPERATIONS: tuple[Operation[Wire, Wire], ...] = (
    LEADERSHIP_GET, LEADERSHIP_SELECT, NODES, LEADERSHIP_RESIGN,
)  # fmt: skip

ADD_PROJECT = Operation(
    "add_project", "membridge.daemon.node.{node}.add_project", AddProjectRequest, ProjectsReply, deadline=30.0,
    impact=Impact.WRITE,
)  # fmt: skip
#: Its jobs may have to come to their end first.
REMOVE_PROJECT = Operation(
    "remove_project", "membridge.daemon.node.{node}.remove_project", RemoveProjectRequest, RemoveProjectReply,
    deadline=60.0, impact=Impact.WRITE,
)  # fmt: skip
PROJECTS = Operation(
    "projects", "membridge.daemon.node.{node}.projects", Empty, ProjectsReply, deadline=5.0, impact=Impact.READ
)

#: Said by the server's own user alone; no member may.
REVOKED = Operation(
    "revoked", "membridge.daemon.node.{node}.revoked", Revocation, Empty, deadline=2.0, impact=Impact.WRITE
)

#: Answered by the node they name, for all its projects.
DAEMON_OPERATIONS: tuple[Operation[Wire, Wire], ...] = (ADD_PROJECT, REMOVE_PROJECT, PROJECTS)

INVITE = Operation("invite", "membridge.access.invite", InviteRequest, InviteReply, deadline=15.0, impact=Impact.WRITE)
INVITATIONS = Operation(
    "invitations", "membridge.access.invitations", Empty, InvitationsReply, deadline=5.0, impact=Impact.READ
)
REVOKE_INVITATION = Operation(
    "revoke_invitation", "membridge.access.revoke_invitation", InvitationRequest, InvitationInfo, deadline=15.0,
    impact=Impact.WRITE,
)  # fmt: skip
#: What a gateway asks of the enrolment service for its administrators, over the task runtime's account.
INVITING_OPERATIONS: tuple[Operation[Wire, Wire], ...] = (INVITE, INVITATIONS, REVOKE_INVITATION)
#: The only subject that a machine without a key of its own may use.
ENROL = Operation("enrol", "membridge.access.enrol", EnrolRequest, EnrolReply, deadline=60.0, impact=Impact.WRITE)
REVOKE = Operation("revoke", "membridge.access.revoke", RevokeRequest, MembersReply, deadline=30.0, impact=Impact.WRITE)
ADMIT = Operation("admit", "membridge.access.admit", AdmitRequest, MembersReply, deadline=30.0, impact=Impact.WRITE)
MEMBERS = Operation("members", "membridge.access.members", Empty, MembersReply, deadline=5.0, impact=Impact.READ)
ACCESS_LOG = Operation("log", "membridge.access.audit_log", Empty, AccessLogReply, deadline=5.0, impact=Impact.READ)
#: Where snapshots are kept, for an enrolled node over its own connection.
STORE_CONFIG = Operation(
    "store_config", "membridge.{project}.access.store", Empty, StoreConfig, deadline=5.0, impact=Impact.READ
)


def _of_runtime(
    name: str, request: type[Q_co], reply: type[R_co], *, impact: Impact, deadline: float = 15.0,
    largest: str | None = None,
) -> Operation[Q_co, R_co]:  # fmt: skip
    return Operation(name, f"membridge.runtime.{name}", request, reply, deadline, impact, largest)


SUBMIT = _of_runtime("submit", TaskSpec, Task, impact=Impact.WRITE, largest="prompt")
TASK = _of_runtime("task", TaskRequest, Task, impact=Impact.READ)
TASKS = _of_runtime("tasks", TasksRequest, TasksReply, impact=Impact.READ)
READ_TASKS = _of_runtime("read_tasks", ReadTasksRequest, ReadTasksReply, impact=Impact.READ)
SUBMIT_TASKS = _of_runtime("submit_tasks", SubmitTasksRequest, SubmitTasksReply, impact=Impact.WRITE, largest="tasks")
CANCEL = _of_runtime("cancel", TaskRequest, Task, impact=Impact.WRITE)
REQUEUE = _of_runtime("requeue", TaskRequest, Task, impact=Impact.WRITE)
CHANGE_TASKS = _of_runtime(
    "change_tasks", ChangeTasksRequest, ChangeTasksReply, impact=Impact.WRITE, deadline=60.0, largest="ids"
)
TASK_JOBS = _of_runtime("task_jobs", Empty, TaskJobsReply, impact=Impact.READ)
TASK_JOB = _of_runtime("task_job", TaskJobRequest, TaskJob, impact=Impact.READ)
STOP_TASK_JOB = _of_runtime("stop_task_job", TaskJobRequest, TaskJob, impact=Impact.WRITE)
RESULT = _of_runtime("result", TaskRequest, ResultReply, impact=Impact.READ)
LEASES = _of_runtime("leases", LeasesRequest, LeasesReply, impact=Impact.READ)
RUNS = _of_runtime("runs", RunsRequest, RunsReply, impact=Impact.READ)
WORKERS = _of_runtime("workers", Empty, WorkersReply, impact=Impact.READ)
WORKER = _of_runtime("worker", WorkerRequest, Worker, impact=Impact.READ)
DRAIN = _of_runtime("drain", WorkerRequest, Worker, impact=Impact.WRITE)
RESUME = _of_runtime("resume", WorkerRequest, Worker, impact=Impact.WRITE)
REMOVE_WORKER = _of_runtime("remove_worker", WorkerRequest, Worker, impact=Impact.WRITE)
ARTIFACTS = _of_runtime("artifacts", ArtifactsRequest, ArtifactsReply, impact=Impact.READ)
ARTIFACT = _of_runtime("artifact", ArtifactRequest, Artifact, impact=Impact.READ)
AUDIT = _of_runtime("audit", AuditRequest, AuditReply, impact=Impact.READ)
STATS = _of_runtime("stats", Empty, StatsReply, impact=Impact.READ)
EVENTS = _of_runtime("events", EventsRequest, EventsReply, impact=Impact.READ)


def _by_worker(name: str, request: type[Q_co], reply: type[R_co], *, deadline: float = 15.0) -> Operation[Q_co, R_co]:
    return Operation(name, f"membridge.runtime.{name}.{{worker}}", request, reply, deadline, Impact.WRITE)


REGISTER = _by_worker("register", Registration, Worker)
LEASE = _by_worker("lease", LeaseRequest, Leased)
HEARTBEAT = _by_worker("heartbeat", LeaseClaim, Lease)
PART = _by_worker("part", OutputPart, Accepted)
REPORT = _by_worker("report", Report, Accepted, deadline=60.0)
HAND_BACK = _by_worker("hand_back", LeaseClaim, Accepted)

#: What people and front ends ask of the runtime.
CLIENT_OPERATIONS: tuple[Operation[Wire, Wire], ...] = (
    SUBMIT, SUBMIT_TASKS, TASK, TASKS, READ_TASKS, CANCEL, REQUEUE, CHANGE_TASKS, TASK_JOBS, TASK_JOB, STOP_TASK_JOB,
    RESULT, RUNS, LEASES, WORKERS, WORKER,
    DRAIN, RESUME, REMOVE_WORKER, ARTIFACTS, ARTIFACT, AUDIT, STATS, EVENTS,
)  # fmt: skip
#: A worker's requests about its leases; its name is in the subject, so that none can send them for another.
REPORTING_OPERATIONS: tuple[Operation[Wire, Wire], ...] = (
    REGISTER, LEASE, HEARTBEAT, PART, REPORT, HAND_BACK,
)  # fmt: skip
#: Answered by any coordinator; what writes is passed on to the one that schedules.
RUNTIME_OPERATIONS: tuple[Operation[Wire, Wire], ...] = (*CLIENT_OPERATIONS, *REPORTING_OPERATIONS)
#: Where the coordinator that schedules answers what others pass on.
SCHEDULER = "membridge.scheduler.{operation}"

RUN = Operation("run", "membridge.worker.{worker}.run", Orders, OrderAnswers, deadline=10.0, impact=Impact.WRITE)
STOP = Operation("cancel", "membridge.worker.{worker}.cancel", LeaseClaim, Accepted, deadline=10.0, impact=Impact.WRITE)
WORKER_STATUS = Operation(
    "status", "membridge.worker.{worker}.status", Empty, WorkerStatusReply, deadline=5.0, impact=Impact.READ
)

#: What a node says of its worker: every ten seconds, at each change, and when it is called.
WORKER_PRESENCE = "membridge.worker.{worker}.presence"
#: A coordinator that begins to schedule asks all workers to say that they are there.
ROLL_CALL = "membridge.runtime.roll_call"
#: Whom a coordinator's task events are of.
COORDINATOR = "coordinator"
#: The service that answers front ends over HTTP.
GATEWAY = "gateway"
#: Names that no worker and no member may have: its requests would be on a subject that a stream keeps, its events
#: another's, or its inboxes those of a service.
RESERVED_WORKERS = frozenset({"proposal", COORDINATOR, GATEWAY})
#: Answered by the worker they name.
WORKER_OPERATIONS: tuple[Operation[Wire, Wire], ...] = (RUN, STOP, WORKER_STATUS)

#: What happens to a task; `{by}` is who tells it, the coordinator or a worker. Kept by the TASKS stream.
TASK_EVENT = "membridge.runtime.task.{task}.{kind}.{by}"


def of_task(task_id: str) -> str:
    """Return the subjects of all events of a task."""
    return fill(TASK_EVENT.removesuffix(".{kind}.{by}"), task=task_id) + ".*.*"


#: Answered by any gateway.
GATEWAY_STATUS = Operation(
    "status", f"membridge.{GATEWAY}.status", Empty, GatewayStatus, deadline=5.0, impact=Impact.READ
)

#: Events; `{kind}` is the event's name in snake case, `{node}` its sender: none can send for another. Kept by the
#: EVENTS stream.
EVENT = "membridge.{project}.event.{kind}.{node}"
#: Where a running job is; not kept.
PROGRESS = "membridge.{project}.progress.{node}"
#: Announcements of proposals; kept by the PROPOSALS work queue.
PROPOSAL = "membridge.{project}.proposal.{node}"
#: The last state of each job; kept by the JOBS stream.
JOB = "membridge.{project}.job.{node}.{job}"
#: What was changed over HTTP, and who was refused to; `{by}` is the key's id. Kept by the WEB_AUDIT stream.
WEB_AUDIT = "membridge.web.audit.entry.{by}"
