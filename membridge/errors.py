"""Everything that can go wrong, as one tree.

MembridgeError
├── InvalidRequestError      SettingsError · UnknownProjectError
├── ForbiddenError           CredentialsError > RevokedError · EncryptionKeyError
├── NotFoundError            ObjectMissingError · DatabaseMissingError
├── RefusedError             PrimaryPullRefusedError · SecondaryPushBlockedError · ShrinkRefusedError
├── FencedError              StaleEpochError · HeadMovedError · LeaseLostError · RevisionMovedError
├── ConflictError            ObjectExistsError · LeaseHeldError · AlreadyRunningError
├── DatabaseInvalidError     DatabaseCorruptError
├── DatabaseBusyError
├── CorruptObjectError       ObjectNotEncryptedError
├── UnsupportedFormatError
├── DiskFullError
├── FileAccessError
├── TooLargeError
├── MethodNotAllowedError
├── UnsupportedMediaTypeError
├── UnavailableError         BusUnavailableError · StoreUnavailableError · NoResponderError · OverloadedError
├── DeadlineExceededError
└── RemoteError              (what another process answered)

Each class has its code; each instance a sentence with the thing's name and a remedy. How a code leaves the process is
decided in `schemas.errors`, nowhere else.
"""

from typing import ClassVar

from schemas.errors import TABLE, ErrorCode, ErrorReply, Mapping


class MembridgeError(Exception):
    """A failure: a code for programs, a sentence and a remedy for people, the field at fault if there is one."""

    code: ClassVar[ErrorCode] = ErrorCode.INTERNAL
    default_remedy: ClassVar[str] = ""

    def __init__(self, message: str, *, remedy: str | None = None, field: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = self.default_remedy if remedy is None else remedy
        self.field = field

    @property
    def mapping(self) -> Mapping:
        """How this error leaves the process."""
        return TABLE[self.code]

    def reply(self, request_id: str | None = None) -> ErrorReply:
        """Return the error as the body of a reply."""
        return ErrorReply(
            code=self.code, message=self.message, remedy=self.remedy, field=self.field, request_id=request_id
        )


class InvalidRequestError(MembridgeError):
    """A request, argument or setting that is not allowed."""

    code = ErrorCode.INVALID_REQUEST


class SettingsError(InvalidRequestError):
    """A setting's value is not allowed."""


class UnknownProjectError(InvalidRequestError):
    """A project that this node does not serve."""

    code = ErrorCode.NOT_FOUND
    default_remedy = "run `membridge project add NAME` on this node"


class ForbiddenError(MembridgeError):
    """A peer that may not do this."""

    code = ErrorCode.FORBIDDEN


class CredentialsError(ForbiddenError):
    """Credentials that a server refused."""

    code = ErrorCode.UNAUTHORIZED


class RevokedError(CredentialsError):
    """This machine's keys are not accepted any more: it was revoked, or the server was set up anew."""

    default_remedy = (
        "ask for a new invitation (`membridge invite` on the server's machine) and run `membridge join LINE --replace`"
    )


class EncryptionKeyError(ForbiddenError):
    """This node's keys do not open what the object store holds, or it has none."""

    code = ErrorCode.UNAUTHORIZED


class NotFoundError(MembridgeError):
    """Something named is not there."""

    code = ErrorCode.NOT_FOUND


class ObjectMissingError(NotFoundError):
    """An object store holds no such object."""


class DatabaseMissingError(NotFoundError):
    """There is no database file."""

    default_remedy = "check CLAUDE_MEM_DB, or run `membridge pull`: it installs the newest snapshot"


class RefusedError(MembridgeError):
    """A role or a safety bound forbids it."""

    code = ErrorCode.CONFLICT


class PrimaryPullRefusedError(RefusedError):
    """A primary's database would be replaced."""

    code = ErrorCode.PRIMARY_PULL_REFUSED


class SecondaryPushBlockedError(RefusedError):
    """A secondary would commit a snapshot."""

    code = ErrorCode.SECONDARY_PUSH_BLOCKED


class ShrinkRefusedError(RefusedError):
    """A commit would lose more rows than the bound allows."""

    code = ErrorCode.SHRINK_REFUSED
    default_remedy = "if the rows were deleted on purpose, run `membridge push --allow-shrink`"


class FencedError(MembridgeError):
    """Somebody else moved on; nothing was written."""

    code = ErrorCode.HEAD_MOVED


class StaleEpochError(FencedError):
    """The epoch of this leadership is over."""

    code = ErrorCode.STALE_EPOCH
    default_remedy = "run `membridge pull`, then push again"


class HeadMovedError(FencedError):
    """The head is not the one this commit builds on."""

    default_remedy = "run `membridge pull`, then push again"


class LeaseLostError(FencedError):
    """A lease that is no longer ours."""

    code = ErrorCode.LEASE_LOST


class RevisionMovedError(FencedError):
    """A KV entry is not at the revision that this write builds on."""


class ConflictError(MembridgeError):
    """The state does not allow it."""

    code = ErrorCode.CONFLICT


class ObjectExistsError(ConflictError):
    """An object of that key is there already."""


class LeaseHeldError(ConflictError):
    """Another node or process holds the lease."""

    code = ErrorCode.LEASE_HELD

    def __init__(self, message: str, *, owner: str, remedy: str | None = None) -> None:
        super().__init__(message, remedy=remedy)
        self.owner = owner


class AlreadyRunningError(ConflictError):
    """Another process of this kind runs here."""


class DatabaseInvalidError(MembridgeError):
    """A file that is not a claude-mem database."""

    code = ErrorCode.DATABASE_INVALID


class DatabaseCorruptError(DatabaseInvalidError):
    """A database that SQLite finds damaged."""


class DatabaseBusyError(MembridgeError):
    """A database that stayed locked until the deadline."""

    code = ErrorCode.DATABASE_BUSY
    default_remedy = "wait for the program that holds it, or raise the deadline"


class CorruptObjectError(MembridgeError):
    """An object whose bytes are not what its record says."""

    code = ErrorCode.CORRUPT_OBJECT


class ObjectNotEncryptedError(CorruptObjectError):
    """An object without a seal where only sealed ones are read: from before encryption, or exchanged."""


class UnsupportedFormatError(MembridgeError):
    """Something that a newer version wrote."""

    code = ErrorCode.UNSUPPORTED_FORMAT
    default_remedy = "upgrade membridge on this node"


class DiskFullError(MembridgeError):
    """No room left to write."""

    code = ErrorCode.DISK_FULL
    default_remedy = "free some space and try again"


class FileAccessError(MembridgeError):
    """A file that cannot be read or written, now: a disk is mounted again, a right is given back."""

    code = ErrorCode.UNAVAILABLE


class TooLargeError(MembridgeError):
    """A body over its bound."""

    code = ErrorCode.TOO_LARGE


class MethodNotAllowedError(MembridgeError):
    """An address that exists, asked with a method that it does not have."""

    code = ErrorCode.METHOD_NOT_ALLOWED


class UnsupportedMediaTypeError(MembridgeError):
    """A body of a type or an encoding that is not read."""

    code = ErrorCode.UNSUPPORTED_MEDIA_TYPE
    default_remedy = "send JSON with `Content-Type: application/json` and no `Content-Encoding`"


class UnavailableError(MembridgeError):
    """A service that does not answer."""

    code = ErrorCode.UNAVAILABLE


class BusUnavailableError(UnavailableError):
    """NATS or JetStream does not answer."""

    default_remedy = "start it with `membridge up`, or set MEMBRIDGE_NATS_URL"


class StoreUnavailableError(UnavailableError):
    """The object store does not answer."""

    default_remedy = "run `membridge doctor`"


class NoResponderError(UnavailableError):
    """Nobody answers that subject."""


class OverloadedError(UnavailableError):
    """More is asked at once than is taken."""

    code = ErrorCode.RATE_LIMITED
    default_remedy = "ask later"

    def __init__(self, message: str, *, seconds: float | None = None) -> None:
        super().__init__(message)
        #: How long to wait until the next try, where that is known.
        self.seconds = seconds


class DeadlineExceededError(MembridgeError):
    """Time ran out."""

    code = ErrorCode.DEADLINE_EXCEEDED


class RemoteError(MembridgeError):
    """What another process answered; carries that process's code."""

    def __init__(self, reply: ErrorReply) -> None:
        super().__init__(reply.message, remedy=reply.remedy, field=reply.field)
        self.code = reply.code  # type: ignore[misc]  # an instance speaks for the remote side
        self.request_id = reply.request_id
