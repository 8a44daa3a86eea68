"""A node on the wire: its presence, its status, its jobs and what its doctor found."""

from enum import StrEnum
from typing import Annotated

from msgspec import Meta

from schemas.fields import MANY, MOST_WHOLE, Instant, Line, Sentence, Text, Whole
from schemas.identity import Epoch, Seq, WireNodeId, WireProjectId
from schemas.leadership import Role
from schemas.wire import Wire
from schemas.workers import WorkerPresence


class Empty(Wire, frozen=True, kw_only=True):
    """No fields."""


class ProjectPresence(Wire, frozen=True, kw_only=True):
    """One project as its node sees it. `lag` is how many commits the mirror is behind the head.

    Each number has the time that it is of: `head_at`, `mirror_at`, `counted_at` for `rows` and `unsynced`, `journal_at`
    for `quarantined` and `conflicts`; empty before there was one. `audited_at` is when the last comparison of all rows
    ended, `missed` how many keys such comparisons found that had been missed, ever. `error` is why the node cannot
    serve the project now; the numbers say nothing then.
    """

    project: WireProjectId
    name: Line
    role: Role
    epoch: Epoch = 0
    head_seq: Seq = 0
    mirror_seq: Seq = 0
    mirror_sha256: Line = ""
    lag: Annotated[int, Meta(ge=-MOST_WHOLE, le=MOST_WHOLE)] = 0
    rows: Annotated[dict[Line, Whole], Meta(max_length=1_024)] = {}
    unsynced: Whole = 0
    quarantined: Whole = 0
    conflicts: Whole = 0
    database: Sentence = ""
    error: Sentence = ""
    head_at: Instant = ""
    mirror_at: Instant = ""
    counted_at: Instant = ""
    journal_at: Instant = ""
    missed: Whole = 0
    audited_at: Instant = ""


class InstallMethod(StrEnum):
    """How membridge came onto a machine."""

    PIPX = "pipx"
    UV = "uv"
    PIP = "pip"
    SOURCE = "source"


class NodePresence(Wire, frozen=True, kw_only=True):
    """What a node publishes about itself every ten seconds. `instance` tells two machines of one name apart."""

    node: WireNodeId
    version: Line
    python: Line
    os: Line
    arch: Line
    addresses: Annotated[list[Line], Meta(max_length=1_024)] = []
    pid: Whole = 0
    instance: Line = ""
    started_at: Instant = ""
    updated_at: Instant = ""
    install_method: InstallMethod | None = None
    projects: Annotated[list[ProjectPresence], Meta(max_length=4_096)] = []
    worker: WorkerPresence | None = None


class NodesReply(Wire, frozen=True, kw_only=True):
    """The nodes that are present, and the names of their projects that have no primary."""

    nodes: Annotated[list[NodePresence], MANY] = []
    leaderless: Annotated[list[Line], Meta(max_length=1_024)] = []


class StatusReply(Wire, frozen=True, kw_only=True):
    """A node's state for one project as of `answered_at`, by the node's clock; older numbers have times of their own.

    `running` is False when no daemon answered and the command read the state itself: nothing is synchronised then.
    `events_waiting` are session events of this machine's hooks that are not published yet; `events_dropped` were not
    published because too many waited.
    """

    node: WireNodeId
    version: Line
    project: ProjectPresence
    primary: WireNodeId | None = None
    rss_bytes: Whole = 0
    uptime_seconds: float = 0.0
    last_error: Text | None = None
    running: bool = True
    answered_at: Instant = ""
    events_waiting: Whole = 0
    events_dropped: Whole = 0


class AddProjectRequest(Wire, frozen=True, kw_only=True):
    """Register a project on a node: its name and, unless it is the default one, its database file."""

    name: Line
    database: Sentence | None = None


class Revocation(Wire, frozen=True, kw_only=True):
    """Tell a node that it is being revoked, and by whom; it stops and does not reconnect."""

    by: Line = ""


class RemoveProjectRequest(Wire, frozen=True, kw_only=True):
    """Stop serving a project, given by name or id, on a node. Its database and snapshots stay."""

    name: Annotated[str, Meta(min_length=1, max_length=256)]


class RemoveProjectReply(Wire, frozen=True, kw_only=True):
    """The project that is no longer served; `led` when this node was its primary, `projects` are the remaining ones."""

    project: WireProjectId
    name: Line
    database: Sentence
    led: bool = False
    projects: Annotated[list[ProjectPresence], MANY] = []


class ProjectsReply(Wire, frozen=True, kw_only=True):
    """The projects a node serves."""

    projects: Annotated[list[ProjectPresence], MANY] = []


class JobState(StrEnum):
    """Where a job is."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    ABANDONED = "abandoned"


class JobStep(Wire, frozen=True, kw_only=True):
    """One step of a job and how long it took."""

    name: Line
    seconds: float


class Job(Wire, frozen=True, kw_only=True):
    """One push or pull: who, when, steps and result."""

    id: Line
    project: WireProjectId
    node: WireNodeId
    kind: Line
    requested_by: Sentence = ""
    state: JobState = JobState.RUNNING
    started_at: Instant
    ended_at: Instant | None = None
    steps: Annotated[list[JobStep], MANY] = []
    result: Text = ""
    error: Text | None = None


class JobRequest(Wire, frozen=True, kw_only=True):
    """Names a job of the project, whichever node it ran on."""

    id: Annotated[str, Meta(min_length=1, max_length=64)]


class JobsReply(Wire, frozen=True, kw_only=True):
    """Jobs, newest first."""

    jobs: Annotated[list[Job], MANY] = []


class Finding(StrEnum):
    """Result of a doctor's check; `skipped` when it could not run."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    SKIPPED = "skipped"


class Check(Wire, frozen=True, kw_only=True):
    """One line of the doctor: what it checked, what it found, what to do."""

    name: Sentence
    finding: Finding
    detail: Text
    remedy: Text = ""


class DoctorReply(Wire, frozen=True, kw_only=True):
    """All checks, in the order they were made."""

    checks: Annotated[list[Check], MANY] = []
