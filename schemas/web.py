"""What travels over HTTP for every service: error bodies, keys, sessions, health and the audit."""

from enum import StrEnum
from typing import Annotated

from msgspec import Meta

from schemas.errors import ErrorCode
from schemas.fields import Line
from schemas.wire import Wire


class ErrorBody(Wire, frozen=True, kw_only=True, omit_defaults=True):
    """The body of every HTTP error: a code for programs, a sentence and a remedy for people, the field at fault."""

    error: ErrorCode
    detail: str
    request_id: str
    remedy: str = ""
    field: str | None = None


class Health(Wire, frozen=True, kw_only=True):
    """That a process answers, and which version it is."""

    status: str
    version: str


class Readiness(Wire, frozen=True, kw_only=True):
    """The names of what was checked, all of it in order."""

    status: str
    checks: list[Line] = []


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
