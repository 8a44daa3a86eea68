"""What travels over the gateway's HTTP surface beside the structs of nodes and coordinators."""

from typing import Annotated

from msgspec import Meta

from schemas.fields import MANY, Labels, Line, Named, Reason, Sentence, Slug, Uuid, Whole
from schemas.results import Metrics, ResultStatus
from schemas.wire import Wire
from schemas.workers import Capabilities

#: Bytes of a body that the gateway takes, and characters of an output in it.
MOST_BODY = 2 << 20
#: An address of an HTTP server, empty for none.
ServerUrl = Annotated[str, Meta(max_length=1_024)]


class GatewayStatus(Wire, frozen=True, kw_only=True):
    """Where a gateway answers HTTP, how many projects it reaches, and for how long it has run."""

    address: Line
    projects: Whole = 0
    uptime_seconds: float = 0.0


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


class Federation(Wire, frozen=True, kw_only=True):
    """The server that was configured over HTTP, and its key. No answer ever has the key."""

    server_url: ServerUrl = ""
    admin_key: Annotated[str, Meta(max_length=1_024)] = ""


class ConnectionTest(Wire, frozen=True, kw_only=True):
    """Whether the configured server answers, and how fast."""

    ok: bool
    server_url: ServerUrl = ""
    detail: Sentence = ""
    latency_ms: float = 0.0


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
