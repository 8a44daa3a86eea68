"""What travels over the gateway's HTTP surface beside the structs of nodes and coordinators."""

from typing import Annotated

from msgspec import Meta

from schemas.commits import (
    DiffRequest,
    ExtractedName,
    ExtractRequest,
    HistoryRequest,
    RestoreBackupRequest,
    RestoreRequest,
    TagAction,
)
from schemas.fields import MANY, Instant, Labels, Line, Named, Number, Reason, Sentence, Slug, Text, Uuid, Whole
from schemas.gateway_nats import Agent, ServerUrl
from schemas.identity import Epoch, Seq, WireNodeId, WireProjectId
from schemas.leadership import Policy
from schemas.memories import ForgetRequest, MemoriesRequest, MemoryRequest
from schemas.node import JobRequest, NodePresence, ProjectPresence
from schemas.proposal import QuarantineAction, UnsyncedRequest
from schemas.results import Metrics, ResultStatus
from schemas.snapshot import PullRequest, PushRequest
from schemas.wire import Wire
from schemas.workers import Capabilities

#: Bytes of a body that the gateway takes, and characters of an output in it.
MOST_BODY = 2 << 20
#: A project, by its canonical id or by its name.
ProjectName = Annotated[str, Meta(min_length=1, max_length=256)]


class RuntimeHealth(Wire, frozen=True, kw_only=True):
    """Whether tasks can be run: the kind of database they are in, and what the gateway is connected to.

    `status` is `ok`, or `degraded` while no coordinator answers.
    """

    status: Line
    service: Line
    version: Line
    storage_type: Line
    uptime_seconds: float
    connections: Annotated[dict[Line, Line], MANY]


class RuntimeConfig(Wire, frozen=True, kw_only=True):
    """The server that `/api/membridge` is passed on to, empty for this one; of its key only the end is shown."""

    server_url: ServerUrl = ""
    admin_key: Line = ""
    #: `environment`, `console`, or `none`.
    source: Line = "none"
    #: What the last request to that server said: `connected`, or why not.
    connection: Sentence = ""


class SetRuntimeConfig(Wire, frozen=True, kw_only=True):
    """Pass `/api/membridge` on to another server; its key is kept if it is not sent again for the same server."""

    server_url: ServerUrl = ""
    admin_key: Annotated[str, Meta(max_length=1_024)] | None = None


class ConnectionTest(Wire, frozen=True, kw_only=True):
    """Whether the configured server answers, and how fast."""

    ok: bool
    server_url: ServerUrl = ""
    detail: Sentence = ""
    latency_ms: float = 0.0


class EffectiveSetting(Wire, frozen=True, kw_only=True):
    """A setting with where its value comes from; a secret is masked."""

    key: Line
    value: Text = ""
    origin: Sentence = ""
    env: Line = ""
    unit: Line = ""
    meaning: Text = ""


class EffectiveSettings(Wire, frozen=True, kw_only=True):
    """The settings of the machine that the gateway runs on, and what is wrong with them."""

    node: WireNodeId
    settings: Annotated[list[EffectiveSetting], MANY] = []
    warnings: Annotated[list[Text], MANY] = []


class RegisterWorker(Wire, frozen=True, kw_only=True):
    """A worker that will lease its tasks over HTTP; of its capabilities the labels count."""

    id: Slug
    capabilities: Capabilities = Capabilities()


class LeaseTask(Wire, frozen=True, kw_only=True):
    """Lease a task to a worker. Repeating the `nonce`, after a lost answer, returns the same lease."""

    id: Named
    worker_id: Slug
    labels: Labels = []
    nonce: Named | None = None


class HeartbeatTask(Wire, frozen=True, kw_only=True):
    """Renew the lease of a task."""

    id: Uuid
    lease_id: Uuid
    worker_id: Slug


class CompleteTask(Wire, frozen=True, kw_only=True):
    """The end of an attempt, under its lease: a success with its output, or an error with its message."""

    id: Uuid
    lease_id: Uuid
    worker_id: Slug
    status: ResultStatus = ResultStatus.SUCCESS
    output: Annotated[str, Meta(max_length=MOST_BODY)] | None = None
    error_message: Reason | None = None
    metrics: Metrics = Metrics(duration_ms=0)
    session: Annotated[str, Meta(max_length=128)] | None = None


class MembridgeHealth(Wire, frozen=True, kw_only=True):
    """Whether projects can be reached: how many there are, and how many nodes are present."""

    status: Line
    service: Line = ""
    version: Line = ""
    projects: Whole = 0
    nodes: Whole = 0
    server_url: ServerUrl = ""


class MachinesReply(Wire, frozen=True, kw_only=True):
    """The nodes that are present, and those that were, as each said last; both by name."""

    nodes: Annotated[list[NodePresence], MANY] = []
    away: Annotated[list[NodePresence], MANY] = []


class MachineName(Wire, frozen=True, kw_only=True):
    """Names a machine."""

    node: WireNodeId


class ProjectSummary(Wire, frozen=True, kw_only=True):
    """A project: its canonical id, its name, its primary and the nodes that are present, as they see it."""

    canonical_id: WireProjectId
    name: Line
    primary_node_id: WireNodeId | None = None
    nodes: Annotated[list[WireNodeId], MANY] = []
    epoch: Epoch = 0
    head_seq: Seq = 0
    unsynced: Whole = 0
    conflicts: Whole = 0
    quarantined: Whole = 0


class ProjectList(Wire, frozen=True, kw_only=True):
    """Projects, by name."""

    projects: Annotated[list[ProjectSummary], MANY] = []


class OfProject(Wire, frozen=True, kw_only=True):
    """Names a project, by its canonical id or by its name."""

    cid: ProjectName


class Leadership(Wire, frozen=True, kw_only=True):
    """Which node leads a project, until when; without one `primary_node_id` is null."""

    canonical_id: WireProjectId
    primary_node_id: WireNodeId | None = None
    epoch: Epoch = 0
    issued_at: Instant = ""
    expires_at: Instant = ""
    lease_seconds: float = 0.0
    policy: Policy = Policy.MANUAL
    issued_by: Sentence = ""
    needs_ui_selection: bool = False
    preferred: WireNodeId | None = None


class SelectLeader(Wire, frozen=True, kw_only=True):
    """Make a node the primary of a project; old clients call it `primary_node_id`."""

    cid: ProjectName
    node: WireNodeId | None = None
    primary_node_id: WireNodeId | None = None
    policy: Policy | None = None


class AddProject(Wire, frozen=True, kw_only=True):
    """Register a project on this machine's node, or on another one, with its database unless that is the default."""

    name: ProjectName
    database: Sentence | None = None
    node: WireNodeId | None = None


class RemoveProject(Wire, frozen=True, kw_only=True):
    """Stop serving a project on this machine's node, or on another one."""

    name: ProjectName
    node: WireNodeId | None = None


class AgentsReply(Wire, frozen=True, kw_only=True):
    """Machines, by name."""

    agents: Annotated[list[Agent], MANY] = []


class RegisterAgent(Wire, frozen=True, kw_only=True):
    """Register a machine that has no node of ours."""

    name: WireNodeId
    url: Sentence = ""


class AgentName(Wire, frozen=True, kw_only=True):
    """Names an agent."""

    name: WireNodeId


class Heartbeat(Wire, frozen=True, kw_only=True):
    """A sign of life of an old agent, with its projects by name or id."""

    node_id: WireNodeId
    url: Sentence = ""
    projects: Annotated[list[ProjectName], Meta(max_length=256)] = []
    version: Line = ""


class HeartbeatReply(Wire, frozen=True, kw_only=True):
    """Which node leads each of the agent's projects."""

    ok: bool
    leadership: Annotated[list[Leadership], MANY] = []


class SyncRequest(Wire, frozen=True, kw_only=True):
    """Which project to push or pull, and on which machine; on each that is present without one."""

    project: ProjectName
    agent: WireNodeId | None = None


class SyncOutcome(Wire, frozen=True, kw_only=True):
    """How a push or pull ended on one machine."""

    agent: WireNodeId
    ok: bool
    outcome: Line = ""
    job_id: Line = ""
    detail: Text = ""


class SyncReply(Wire, frozen=True, kw_only=True):
    """How a push or pull ended on each machine."""

    ok: bool
    dryrun: bool = False
    results: Annotated[list[SyncOutcome], MANY] = []


class JobsOf(Wire, frozen=True, kw_only=True):
    """Whose jobs to list: those of one project, or of all."""

    project: ProjectName | None = None


class JobOf(Wire, frozen=True, kw_only=True):
    """Names a job of any project."""

    id: Named


class AgentAction(Wire, frozen=True, kw_only=True):
    """What an agent is asked to do, for one of its projects; for its first one without a name."""

    project: ProjectName | None = None


class AgentOutput(Wire, frozen=True, kw_only=True):
    """What came of it, as the old agent told it: an exit code, and at most 200 lines of each output."""

    ok: bool
    returncode: Number = 0
    stdout: Text = ""
    stderr: Text = ""
    dryrun: bool = False


class AgentStatus(Wire, frozen=True, kw_only=True):
    """This machine: its node, and the projects that it serves."""

    status: Line
    agent: WireNodeId
    version: Line
    dryrun: bool = False
    projects: Annotated[list[ProjectPresence], MANY] = []


class FollowEvents(Wire, frozen=True, kw_only=True):
    """Whose events to follow: those of one project, or all that the caller may read."""

    project: ProjectName | None = None


class AnyEvent(Wire, frozen=True, kw_only=True):
    """An item of the event stream; its fields are those of the struct that its name stands for."""


class OnNode(OfProject, frozen=True, kw_only=True):
    """Names a project, and the node to ask: its primary without one."""

    node: WireNodeId | None = None


class ListSnapshots(HistoryRequest, frozen=True, kw_only=True):
    """The newest snapshots of a project, of those older than `before` where that is given."""

    cid: ProjectName
    node: WireNodeId | None = None


class DiffSnapshots(DiffRequest, frozen=True, kw_only=True):
    """Compare two states of a project."""

    cid: ProjectName
    node: WireNodeId | None = None


class RestoreSnapshot(RestoreRequest, frozen=True, kw_only=True):
    """Restore a state of a project as its memory; without `apply` only say what would change."""

    cid: ProjectName
    node: WireNodeId | None = None


class RestoreFromBackup(RestoreBackupRequest, frozen=True, kw_only=True):
    """Restore a node's database from a backup; without `apply` only say what would change.

    A backup is on one machine, so the node is named.
    """

    cid: ProjectName
    node: WireNodeId


class PushNow(PushRequest, frozen=True, kw_only=True):
    """Push a node's memory now."""

    cid: ProjectName
    node: WireNodeId | None = None


class PullNow(PullRequest, frozen=True, kw_only=True):
    """Pull into a node's memory now."""

    cid: ProjectName
    node: WireNodeId | None = None


class JobOfProject(JobRequest, frozen=True, kw_only=True):
    """Names a job of a project."""

    cid: ProjectName
    node: WireNodeId | None = None


class ActOnTags(TagAction, frozen=True, kw_only=True):
    """List, set or delete tags of a project."""

    cid: ProjectName
    node: WireNodeId | None = None


class ActOnQuarantine(QuarantineAction, frozen=True, kw_only=True):
    """List, retry or drop what a node could not merge."""

    cid: ProjectName
    node: WireNodeId | None = None


class ListMemories(MemoriesRequest, frozen=True, kw_only=True):
    """The newest memories of a filter, as a node has them."""

    cid: ProjectName
    node: WireNodeId | None = None


class OneMemory(MemoryRequest, frozen=True, kw_only=True):
    """Names a memory of a project."""

    cid: ProjectName
    node: WireNodeId | None = None


class ForgetMemories(ForgetRequest, frozen=True, kw_only=True):
    """Forget memories of a project on every machine; without `apply` only say which."""

    cid: ProjectName
    node: WireNodeId | None = None


class ListUnsynced(UnsyncedRequest, frozen=True, kw_only=True):
    """Which rows of a node the canonical memory lacks, and why."""

    cid: ProjectName
    node: WireNodeId | None = None


class DownloadState(Wire, frozen=True, kw_only=True):
    """Names the file of an extracted state, and the node that made it: the primary without one."""

    cid: ProjectName
    name: ExtractedName
    node: WireNodeId | None = None


class ExtractSnapshot(ExtractRequest, frozen=True, kw_only=True):
    """Write a state of a project to a file on a node's machine."""

    cid: ProjectName
    node: WireNodeId | None = None
