"""Joining a memory: inviting a machine, enrolling it, cutting it off, and what it is told to configure.

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


class InviteRequest(Wire, frozen=True, kw_only=True):
    """Let one machine join: as `node`, or under a name that it chooses; `projects` by name, all when empty."""

    node: WireNodeId | None = None
    projects: Annotated[list[Line], Meta(max_length=64)] = []
    expires_seconds: Expiry = 600


class InviteReply(Wire, frozen=True, kw_only=True):
    """The invitation: one line to paste on the other machine, good once and until `expires_at`."""

    id: InvitationId
    line: Text
    projects: Annotated[list[Line], MANY]
    node: WireNodeId | None = None
    expires_at: Instant


class EnrolRequest(Wire, frozen=True, kw_only=True):
    """A machine asks in: the invitation and its secret, the name it takes, its public key for each project."""

    invitation: InvitationId
    secret: Secret
    node: WireNodeId
    keys: Annotated[dict[WireProjectId, PublicKey], Meta(min_length=1, max_length=64)]
    #: Its key for the task runtime; a machine of before there was one sends none, and takes no part in tasks.
    runtime_key: PublicKey | None = None
    version: Annotated[str, Meta(max_length=64)] = ""


class EnrolReply(Wire, frozen=True, kw_only=True):
    """The machine is in; each of its keys is known to the server now."""

    node: WireNodeId


class StoreConfig(Wire, frozen=True, kw_only=True):
    """Where snapshots are kept, told to an enrolled node over its own connection. `ca` is PEM text.

    `sealing_keys` is the text of a key file; it and the passphrase open what is kept there.
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
    """Cut a node off, in all its projects."""

    node: WireNodeId


class MemberRole(StrEnum):
    """What a member is: a machine with a memory, a front end that only looks, or a gateway that people act through."""

    NODE = "node"
    READER = "reader"
    GATEWAY = "gateway"


class AdmitRequest(Wire, frozen=True, kw_only=True):
    """Let a front end in, with keys that were made for it: one for each project that it sees, and one for tasks."""

    node: WireNodeId
    role: MemberRole
    keys: Annotated[dict[WireProjectId, PublicKey], Meta(min_length=1, max_length=64)]
    runtime_key: PublicKey


class MemberState(StrEnum):
    """Whether a machine is in."""

    ENROLLED = "enrolled"
    REVOKED = "revoked"


class Member(Wire, frozen=True, kw_only=True):
    """Who was let in: its public keys by project and for tasks, what it is, and when it came and went."""

    node: WireNodeId
    keys: Annotated[dict[WireProjectId, PublicKey], MANY]
    enrolled_at: Instant
    runtime_key: PublicKey | None = None
    role: MemberRole = MemberRole.NODE
    revoked_at: Instant | None = None

    @property
    def state(self) -> MemberState:
        """Whether it is in now."""
        return MemberState.REVOKED if self.revoked_at else MemberState.ENROLLED


class MembersReply(Wire, frozen=True, kw_only=True):
    """Everybody who was ever let in, by name, and the names of the projects that there are."""

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
    """One line of the access log. `reason` says why something was refused; no secret is ever in it."""

    at: Instant
    action: AccessAction
    node: Sentence = ""
    invitation: Sentence = ""
    projects: Annotated[list[Sentence], MANY] = []
    reason: Text = ""


class AccessLogReply(Wire, frozen=True, kw_only=True):
    """The access log, newest first."""

    records: Annotated[list[AccessRecord], MANY] = []
