"""Joining a memory: inviting a machine, enrolling it, revoking it, and the settings it receives.

No struct here holds a private key; a secret travels once, over verified TLS, and is kept as its sha256 only.
"""

from enum import StrEnum
from typing import Annotated

from msgspec import Meta

from schemas.fields import MANY, Instant, Line, Sentence, Text
from schemas.identity import WireNodeId, WireProjectId
from schemas.wire import Wire

#: An nkey of a user, the public half.
PublicKey = Annotated[str, Meta(pattern=r"^U[A-Z2-7]{55}\Z")]
#: Seconds an invitation may be open: a minute to a week.
Expiry = Annotated[int, Meta(ge=60, le=604_800)]
InvitationId = Annotated[str, Meta(pattern=r"^[0-9a-f]{16}\Z")]
Secret = Annotated[str, Meta(min_length=16, max_length=128)]
#: What an invitation is for, for people.
Note = Annotated[str, Meta(max_length=200)]


class InviteRequest(Wire, frozen=True, kw_only=True):
    """Let one machine join: as `node`, or under a name that it chooses; `projects` by name, all when empty."""

    node: WireNodeId | None = None
    projects: Annotated[list[Line], Meta(max_length=64)] = []
    expires_seconds: Expiry = 600
    note: Note = ""


class InviteReply(Wire, frozen=True, kw_only=True):
    """The invitation: one line to paste on the other machine, good once and until `expires_at`."""

    id: InvitationId
    line: Text
    projects: Annotated[list[Line], MANY]
    node: WireNodeId | None = None
    expires_at: Instant


class InvitationState(StrEnum):
    """Whether an invitation can still be used."""

    OPEN = "open"
    USED = "used"
    EXPIRED = "expired"
    REVOKED = "revoked"


class InvitationInfo(Wire, frozen=True, kw_only=True):
    """An invitation as it is shown: never with its secret."""

    id: InvitationId
    state: InvitationState
    projects: Annotated[list[Line], MANY] = []
    node: WireNodeId | None = None
    note: Text = ""
    created_at: Instant = ""
    created_by: Sentence = ""
    expires_at: Instant = ""
    used_by: WireNodeId | None = None
    used_at: Instant = ""
    revoked_at: Instant = ""
    revoked_by: Sentence = ""


class InvitationRequest(Wire, frozen=True, kw_only=True):
    """Names an invitation."""

    id: InvitationId


class InvitationsReply(Wire, frozen=True, kw_only=True):
    """Invitations, the newest first, those that were used, expired or revoked too."""

    invitations: Annotated[list[InvitationInfo], MANY] = []


class EnrolRequest(Wire, frozen=True, kw_only=True):
    """A machine asks in: the invitation and its secret, the name it takes, its public key for each project."""

    invitation: InvitationId
    secret: Secret
    node: WireNodeId
    keys: Annotated[dict[WireProjectId, PublicKey], Meta(min_length=1, max_length=64)]
    #: Its key for the task runtime; an older machine sends none and takes no part in tasks.
    runtime_key: PublicKey | None = None
    version: Annotated[str, Meta(max_length=64)] = ""


class EnrolReply(Wire, frozen=True, kw_only=True):
    """The machine is enrolled; the server knows each of its keys now."""

    node: WireNodeId


class StoreConfig(Wire, frozen=True, kw_only=True):
    """Where snapshots are kept, sent to an enrolled node over its own connection. `ca` is PEM text.

    `sealing_keys` is the text of a key file; it and the passphrase decrypt the objects.
    """

    kind: Line
    endpoint: Sentence | None = None
    access_key: Sentence | None = None
    secret_key: Sentence | None = None
    bucket: Sentence | None = None
    region: Sentence | None = None
    ca: Text | None = None
    sealing_keys: Text | None = None
    passphrase: Sentence | None = None


class RevokeRequest(Wire, frozen=True, kw_only=True):
    """Revoke a node, in all its projects."""

    node: WireNodeId


class MemberRole(StrEnum):
    """Kind of a member: a machine with a memory, a front end that only reads, or a gateway that people act through."""

    NODE = "node"
    READER = "reader"
    GATEWAY = "gateway"


class AdmitRequest(Wire, frozen=True, kw_only=True):
    """Admit a front end with its new keys: one for each project that it sees, and one for tasks."""

    node: WireNodeId
    role: MemberRole
    keys: Annotated[dict[WireProjectId, PublicKey], Meta(min_length=1, max_length=64)]
    runtime_key: PublicKey


class MemberState(StrEnum):
    """Whether a member may connect."""

    ENROLLED = "enrolled"
    REVOKED = "revoked"


class Member(Wire, frozen=True, kw_only=True):
    """A member: its public keys by project and for tasks, its role, when it was enrolled and revoked."""

    node: WireNodeId
    keys: Annotated[dict[WireProjectId, PublicKey], MANY]
    enrolled_at: Instant
    runtime_key: PublicKey | None = None
    role: MemberRole = MemberRole.NODE
    revoked_at: Instant | None = None

    @property
    def state(self) -> MemberState:
        """Whether it may connect now."""
        return MemberState.REVOKED if self.revoked_at else MemberState.ENROLLED


class MembersReply(Wire, frozen=True, kw_only=True):
    """Every member, the revoked ones too, by name; and the names of all projects."""

    members: Annotated[list[Member], MANY] = []
    projects: Annotated[list[Line], MANY] = []


class AccessAction(StrEnum):
    """What an entry of the access log is about."""

    INVITED = "invited"
    ENROLLED = "enrolled"
    ADMITTED = "admitted"
    REFUSED = "refused"
    REVOKED = "revoked"


class AccessRecord(Wire, frozen=True, kw_only=True):
    """One line of the access log. `reason` says why something was refused. It never holds a secret."""

    at: Instant
    action: AccessAction
    node: Sentence = ""
    invitation: Sentence = ""
    projects: Annotated[list[Sentence], MANY] = []
    reason: Text = ""


class AccessLogReply(Wire, frozen=True, kw_only=True):
    """The access log, newest first."""

    records: Annotated[list[AccessRecord], MANY] = []
