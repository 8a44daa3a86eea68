"""Error codes, the one table that maps them to NATS, HTTP and exit codes, and the body of an error reply.

Nothing else decides on a status number; a test asserts that the table covers every code.
"""

from dataclasses import dataclass
from enum import StrEnum

from schemas.fields import Text
from schemas.wire import Wire


class ErrorCode(StrEnum):
    """What went wrong, for a program."""

    INVALID_REQUEST = "invalid_request"
    UNAUTHORIZED = "unauthorized"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    MISDIRECTED = "misdirected"
    PRIMARY_PULL_REFUSED = "primary_pull_refused"
    SECONDARY_PUSH_BLOCKED = "secondary_push_blocked"
    STALE_EPOCH = "stale_epoch"
    HEAD_MOVED = "head_moved"
    LEASE_LOST = "lease_lost"
    LEASE_HELD = "lease_held"
    CONFLICT = "conflict"
    SHRINK_REFUSED = "shrink_refused"
    DATABASE_INVALID = "database_invalid"
    DATABASE_BUSY = "database_busy"
    CORRUPT_OBJECT = "corrupt_object"
    UNSUPPORTED_FORMAT = "unsupported_format"
    DISK_FULL = "disk_full"
    TOO_LARGE = "too_large"
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type"
    RATE_LIMITED = "rate_limited"
    UNAVAILABLE = "unavailable"
    DEADLINE_EXCEEDED = "deadline_exceeded"
    INTERNAL = "internal"


class Retry(StrEnum):
    """Whether trying again can help: auto-sync and the workers decide by nothing else."""

    NO = "no"
    AFTER_REREAD = "after_reread"
    LATER = "later"
    YES = "yes"
    IF_IDEMPOTENT = "if_idempotent"


#: Errors after which the very same request may succeed.
AGAIN = frozenset({Retry.YES, Retry.LATER, Retry.IF_IDEMPOTENT})


@dataclass(frozen=True, slots=True)
class Mapping:
    """How one code leaves the process."""

    nats: int
    http: int
    exit: int
    retry: Retry
    log_level: str


TABLE: dict[ErrorCode, Mapping] = {
    ErrorCode.INVALID_REQUEST: Mapping(400, 400, 1, Retry.NO, "debug"),
    ErrorCode.UNAUTHORIZED: Mapping(401, 401, 1, Retry.NO, "warning"),
    ErrorCode.FORBIDDEN: Mapping(403, 403, 1, Retry.NO, "warning"),
    ErrorCode.NOT_FOUND: Mapping(404, 404, 1, Retry.AFTER_REREAD, "debug"),
    ErrorCode.METHOD_NOT_ALLOWED: Mapping(405, 405, 1, Retry.NO, "debug"),
    ErrorCode.MISDIRECTED: Mapping(421, 421, 1, Retry.NO, "warning"),
    ErrorCode.PRIMARY_PULL_REFUSED: Mapping(409, 409, 2, Retry.NO, "info"),
    ErrorCode.SECONDARY_PUSH_BLOCKED: Mapping(409, 409, 3, Retry.NO, "info"),
    ErrorCode.STALE_EPOCH: Mapping(409, 409, 1, Retry.AFTER_REREAD, "info"),
    ErrorCode.HEAD_MOVED: Mapping(409, 409, 1, Retry.AFTER_REREAD, "info"),
    ErrorCode.LEASE_LOST: Mapping(409, 409, 1, Retry.AFTER_REREAD, "info"),
    ErrorCode.LEASE_HELD: Mapping(409, 409, 1, Retry.LATER, "info"),
    ErrorCode.CONFLICT: Mapping(409, 409, 1, Retry.NO, "info"),
    ErrorCode.SHRINK_REFUSED: Mapping(409, 409, 1, Retry.NO, "warning"),
    ErrorCode.DATABASE_INVALID: Mapping(422, 422, 1, Retry.NO, "warning"),
    ErrorCode.DATABASE_BUSY: Mapping(503, 503, 1, Retry.YES, "warning"),
    ErrorCode.CORRUPT_OBJECT: Mapping(502, 502, 1, Retry.NO, "error"),
    ErrorCode.UNSUPPORTED_FORMAT: Mapping(422, 422, 1, Retry.NO, "warning"),
    ErrorCode.DISK_FULL: Mapping(507, 507, 1, Retry.LATER, "error"),
    ErrorCode.TOO_LARGE: Mapping(413, 413, 1, Retry.NO, "debug"),
    ErrorCode.UNSUPPORTED_MEDIA_TYPE: Mapping(415, 415, 1, Retry.NO, "debug"),
    ErrorCode.RATE_LIMITED: Mapping(429, 429, 1, Retry.LATER, "debug"),
    ErrorCode.UNAVAILABLE: Mapping(503, 503, 1, Retry.YES, "warning"),
    ErrorCode.DEADLINE_EXCEEDED: Mapping(504, 504, 1, Retry.IF_IDEMPOTENT, "warning"),
    ErrorCode.INTERNAL: Mapping(500, 500, 1, Retry.NO, "error"),
}


class ErrorReply(Wire, frozen=True, kw_only=True):
    """The JSON body of an error: code for programs, message and remedy for people, the field when one is at fault."""

    code: ErrorCode
    message: Text
    remedy: Text = ""
    field: Text | None = None
    request_id: Text | None = None
