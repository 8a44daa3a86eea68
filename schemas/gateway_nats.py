"""What gateways say and keep in NATS: their status, machines that old clients registered, the server behind them.

Apart from the gateway's messages over HTTP, of which a node needs none.
"""

from typing import Annotated

from msgspec import Meta

from schemas.fields import Instant, Line, Sentence, Whole
from schemas.identity import WireNodeId
from schemas.wire import Wire

#: An address of an HTTP server, empty for none.
ServerUrl = Annotated[str, Meta(max_length=1_024)]


class GatewayStatus(Wire, frozen=True, kw_only=True):
    """Where a gateway answers HTTP, how many projects it reaches, and for how long it has run."""

    address: Line
    projects: Whole = 0
    uptime_seconds: float = 0.0


class Federation(Wire, frozen=True, kw_only=True):
    """The server that was configured over HTTP, and its key. No answer ever has the key."""

    server_url: ServerUrl = ""
    admin_key: Annotated[str, Meta(max_length=1_024)] = ""


class Agent(Wire, frozen=True, kw_only=True):
    """A machine: one whose node is present, or one that an old client registered.

    `status` is `online` for a node that is present and for an agent that was heard of within two minutes.
    """

    name: WireNodeId
    url: Sentence = ""
    kind: Line = "agent"
    status: Line = "unknown"
    last_seen: Instant = ""
    version: Line = ""
    projects: Annotated[list[Line], Meta(max_length=4_096)] = []
