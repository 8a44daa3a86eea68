"""Workers: what they can do, and whether they take tasks."""

from enum import StrEnum
from typing import Annotated

from msgspec import Meta

from schemas.fields import MANY, Instant, Labels, Line, Number, Sentence, Slug, Text, Uuid, Whole
from schemas.leases import Lease
from schemas.wire import Wire


class WorkerStatus(StrEnum):
    """Whether a worker takes tasks. `syncing`: it finishes its tasks and takes no more."""

    ONLINE = "online"
    OFFLINE = "offline"
    SYNCING = "syncing"
    ERROR = "error"
    UNKNOWN = "unknown"


class Capabilities(Wire, frozen=True, kw_only=True):
    """What a worker can do: whether it has the `claude` program, how many tasks at once, its labels."""

    claude_cli: bool = False
    max_concurrency: Annotated[int, Meta(ge=1, le=32)] = 1
    labels: Labels = []


class WorkerPresence(Wire, frozen=True, kw_only=True):
    """The part of a node's presence about tasks; `detail` says why it takes none."""

    capabilities: Capabilities
    status: WorkerStatus = WorkerStatus.ONLINE
    active_leases: Number = 0
    detail: Sentence = ""


class Worker(Wire, frozen=True, kw_only=True):
    """A worker as the coordinator knows it; a request for one worker returns its active leases too."""

    id: Slug
    node_id: Slug
    status: WorkerStatus = WorkerStatus.UNKNOWN
    capabilities: Capabilities = Capabilities()
    last_heartbeat: Instant = ""
    ip_addrs: Annotated[list[Line], MANY] = []
    obs_count: Whole = 0
    db_sha: Line = ""
    registered_at: Instant = ""
    active_leases: Number = 0
    agent_version: Line = ""
    os_info: Sentence = ""
    install_method: Line = ""
    detail: Text = ""
    leases: Annotated[list[Lease], MANY] = []


class WorkerRequest(Wire, frozen=True, kw_only=True):
    """Names a worker."""

    id: Slug


class Registration(Wire, frozen=True, kw_only=True):
    """A worker outside the nodes says that it will ask for tasks, and which labels it has."""

    worker_id: Slug
    labels: Labels = []


class WorkersReply(Wire, frozen=True, kw_only=True):
    """Workers, by id."""

    workers: Annotated[list[Worker], MANY] = []


class WorkerStatusReply(Wire, frozen=True, kw_only=True):
    """What a worker reports about itself: its presence and the tasks it runs."""

    presence: WorkerPresence
    running: Annotated[list[Uuid], Meta(max_length=1_024)] = []
