"""What travels over HTTP for every service: error bodies, keys, sessions, health and the audit."""

from enum import StrEnum
from typing import Annotated

from msgspec import Meta

from schemas.errors import ErrorCode
from schemas.fields import MANY, Instant, Line, Number, Sentence, Text
from schemas.identity import Sha256
from schemas.wire import Wire


class ErrorBody(Wire, frozen=True, kw_only=True, omit_defaults=True):
    """The body of every HTTP error: a code for programs, a sentence and a remedy for people, the field at fault."""

    error: ErrorCode
    detail: Text
    request_id: Text
    remedy: Text = ""
    field: Text | None = None


class Problem(ErrorBody, frozen=True, kw_only=True, omit_defaults=True):
    """The same with the members of RFC 9457, for a client that accepts `application/problem+json`."""

    type: Line
    title: Line
    status: Number
    instance: Sentence


class Health(Wire, frozen=True, kw_only=True):
    """That a process answers, and which version it is."""

    status: Line
    version: Line


class Readiness(Wire, frozen=True, kw_only=True):
    """The names of what was checked, all of it in order."""

    status: Line
    checks: Annotated[list[Line], MANY] = []


class Role(StrEnum):
    """What a key may do within its scopes; each role may do what those before it may."""

    READER = "reader"
    OPERATOR = "operator"
    ADMIN = "admin"


#: What a key is for, such as `tasks`; `*` is everything.
Scope = Annotated[str, Meta(pattern=r"^(\*|[a-z][a-z0-9_]{0,31})\Z")]
#: The public half of a key, by which it is named.
KeyId = Annotated[str, Meta(pattern=r"^[a-z2-7]{12}\Z")]
KeyName = Annotated[str, Meta(min_length=1, max_length=64)]


class KeyInfo(Wire, frozen=True, kw_only=True):
    """A key as it is shown."""

    id: KeyId
    name: KeyName
    role: Role
    scopes: Annotated[list[Scope], MANY]
    created_at: Instant
    created_by: Line
    expires_at: Instant | None = None
    revoked_at: Instant | None = None
    revoked_by: Line = ""
    #: Exact to a minute; None for one that was never used.
    last_used_at: Instant | None = None


class KeyUse(Wire, frozen=True, kw_only=True):
    """When a key was last used."""

    at: Instant


class ApiKey(KeyInfo, frozen=True, kw_only=True):
    """A key as it is stored: what is shown of it, and the sha256 of its secret half."""

    sha256: Sha256


class IssueKeyRequest(Wire, frozen=True, kw_only=True):
    """What a new key is called, what it may do, and for how many days."""

    name: KeyName
    role: Role
    scopes: Annotated[list[Scope], Meta(min_length=1, max_length=32)]
    days: Annotated[int, Meta(ge=1, le=3_650)] | None = None


class IssuedKey(Wire, frozen=True, kw_only=True):
    """A new key; `secret` is shown this once and stored nowhere."""

    key: KeyInfo
    secret: Line


class KeyRequest(Wire, frozen=True, kw_only=True):
    """Which key."""

    id: KeyId


class KeysReply(Wire, frozen=True, kw_only=True):
    """Every key, those that were revoked too."""

    keys: Annotated[list[KeyInfo], MANY]


class LoginRequest(Wire, frozen=True, kw_only=True):
    """The key that a browser opens a session with."""

    key: Annotated[str, Meta(min_length=1, max_length=256)]


class SessionReply(Wire, frozen=True, kw_only=True):
    """Who asks, and what it may do."""

    #: The id of an issued key, or what the server calls a caller that it admits otherwise.
    key_id: Line
    name: Line
    role: Role
    scopes: Annotated[list[Scope], MANY]
    #: When the session ends whatever happens; none for a caller without a session.
    ends_at: Instant | None = None


class EndedSession(Wire, frozen=True, kw_only=True):
    """A session that was logged out before its time."""

    #: The id of an issued key, or what the server calls a key of its settings.
    key_id: Line
    at: Instant


class SessionSecret(Wire, frozen=True, kw_only=True):
    """What every server seals cookies with. No answer ever has it."""

    secret: Line
    made_at: Instant | None = None
    #: The one before it, which opens the cookies that it sealed.
    previous: Line = ""


class AuditEntry(Wire, frozen=True, kw_only=True):
    """Who changed what over HTTP, or was refused to. No secret is ever in it."""

    at: Instant
    #: Name of the route.
    action: Line
    #: The path that was asked, which names the thing.
    path: Sentence
    by: Line
    address: Line
    request_id: Line
    #: `ok`, or the code of the error.
    outcome: Line
    #: The ids of further requests of the same caller for the same thing with the same outcome, at the same moment.
    others: Annotated[list[Line], MANY] = []
