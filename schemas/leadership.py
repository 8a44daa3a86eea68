"""Leadership on the wire: who is primary of a project, under which epoch, and the project's durable settings."""

from enum import StrEnum
from typing import Annotated

from msgspec import Meta

from schemas.fields import Instant, Line, Sentence
from schemas.identity import Epoch, WireNodeId, WireProjectId
from schemas.wire import Wire


class Role(StrEnum):
    """What a node may do for one project."""

    PRIMARY = "primary"
    SECONDARY = "secondary"
    NONE = "none"


class Policy(StrEnum):
    """Which node takes over when a lease expires: only the preferred primary, or the freshest live secondary."""

    MANUAL = "manual"
    AUTO = "auto"


class LeaderRecord(Wire, frozen=True, kw_only=True):
    """The lease entry of a project. `issued_at` and `expires_at` are wall clock, for people only."""

    primary_node_id: WireNodeId
    epoch: Epoch
    issued_at: Instant
    expires_at: Instant
    lease_seconds: float
    policy: Policy = Policy.MANUAL
    issued_by: Sentence = ""
    needs_ui_selection: bool = False
    term: Line = ""


class ProjectSettings(Wire, frozen=True, kw_only=True):
    """What a project keeps without a TTL: its name, policy and preferred primary."""

    project: WireProjectId
    name: Line
    policy: Policy = Policy.MANUAL
    preferred: WireNodeId | None = None
    updated_by: Sentence = ""


class EpochCounter(Wire, frozen=True, kw_only=True):
    """The highest epoch ever handed out for a project."""

    epoch: Epoch


class LeadershipReply(Wire, frozen=True, kw_only=True):
    """The current state: no `leader` means that no node holds the lease (`needs_ui_selection` under `manual`)."""

    leader: LeaderRecord | None = None
    policy: Policy = Policy.MANUAL
    preferred: WireNodeId | None = None
    needs_ui_selection: bool = False


class SelectRequest(Wire, frozen=True, kw_only=True):
    """Make `node` the preferred primary; a live primary flushes and hands over to it."""

    node: WireNodeId
    policy: Policy | None = None
    issued_by: Annotated[str, Meta(max_length=128)] = ""
