"""Everything that can go wrong, as one tree.

MembridgeError
├── InvalidRequestError      SettingsError · UnknownProjectError · NotOnWindowsError
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
├── MisdirectedError
├── UnsupportedMediaTypeError
├── UnavailableError         BusUnavailableError · StoreUnavailableError · NoResponderError · OverloadedError
├── DeadlineExceededError
└── RemoteError              (what another process answered)

Each class has a code; each instance has a sentence that names the thing, and a remedy. `schemas.errors` alone decides
how a code leaves the process.
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


class NotOnWindowsError(InvalidRequestError):
    """A command that needs a node of Membridge on this machine, and this is Windows."""

    default_remedy = (
        "run it on another machine of this memory, or on this one in WSL 2: `wsl --install`, and in there "
        "`sh deploy/install.sh node`"
    )


class ForbiddenError(MembridgeError):
    """The sender of the request may not do this."""

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
    """This node has no key that decrypts what the object store holds."""

    code = ErrorCode.UNAUTHORIZED


class NotFoundError(MembridgeError):
    """The named thing does not exist."""

    code = ErrorCode.NOT_FOUND


class ObjectMissingError(NotFoundError):
    """The object store has no object of that key."""

    default_remedy = "run `membridge verify`: it lists what is missing, and what helps"


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
    """Another node took over or committed meanwhile; nothing was written."""

    code = ErrorCode.HEAD_MOVED


class StaleEpochError(FencedError):
    """A newer epoch has begun."""

    code = ErrorCode.STALE_EPOCH
    default_remedy = "run `membridge pull`, then push again"


class HeadMovedError(FencedError):
    """The head is not the one this commit builds on."""

    default_remedy = "run `membridge pull`, then push again"


class LeaseLostError(FencedError):
    """This process no longer holds the lease."""

    code = ErrorCode.LEASE_LOST


class RevisionMovedError(FencedError):
    """A KV entry is not at the revision that this write builds on."""


class ConflictError(MembridgeError):
    """The present state does not allow it."""

    code = ErrorCode.CONFLICT


class ObjectExistsError(ConflictError):
    """An object of that key exists already."""


class LeaseHeldError(ConflictError):
    """Another node or process holds the lease."""

    code = ErrorCode.LEASE_HELD

    def __init__(self, message: str, *, owner: str, remedy: str | None = None) -> None:
        super().__init__(message, remedy=remedy)
        self.owner = owner


class AlreadyRunningError(ConflictError):
    """Another process of this kind is running here."""


class DatabaseInvalidError(MembridgeError):
    """A file that is not a claude-mem database."""

    code = ErrorCode.DATABASE_INVALID


class DatabaseCorruptError(DatabaseInvalidError):
    """A database that SQLite finds damaged."""


class DatabaseBusyError(MembridgeError):
    """A database that stayed locked until the deadline."""

    code = ErrorCode.DATABASE_BUSY
    default_remedy = "close the program that holds it, or raise MEMBRIDGE_OPERATION_TIMEOUT_SECONDS"


class CorruptObjectError(MembridgeError):
    """An object whose bytes do not match its record."""

    code = ErrorCode.CORRUPT_OBJECT
    default_remedy = "run `membridge verify`: it lists what is damaged, and what helps"


class ObjectNotEncryptedError(CorruptObjectError):
    """A plain object where only encrypted ones are read: older than the encryption, or replaced."""


class UnsupportedFormatError(MembridgeError):
    """Data that a newer version wrote."""

    code = ErrorCode.UNSUPPORTED_FORMAT
    default_remedy = "upgrade membridge on this node"


class DiskFullError(MembridgeError):
    """No room left to write."""

    code = ErrorCode.DISK_FULL
    default_remedy = "free some space and try again"


class FileAccessError(MembridgeError):
    """A file cannot be read or written: its permissions or its disk need attention."""

    code = ErrorCode.UNAVAILABLE


class TooLargeError(MembridgeError):
    """A request, reply or object over its size limit."""

    code = ErrorCode.TOO_LARGE


class MethodNotAllowedError(MembridgeError):
    """The path exists, but not with this method."""

    code = ErrorCode.METHOD_NOT_ALLOWED


class MisdirectedError(MembridgeError):
    """A request for another host than this server."""

    code = ErrorCode.MISDIRECTED


class UnsupportedMediaTypeError(MembridgeError):
    """A body whose type or encoding is not accepted."""

    code = ErrorCode.UNSUPPORTED_MEDIA_TYPE
    default_remedy = "send JSON with `Content-Type: application/json` and no `Content-Encoding`"


class UnavailableError(MembridgeError):
    """A service that does not answer."""

    code = ErrorCode.UNAVAILABLE


class BusUnavailableError(UnavailableError):
    """NATS or JetStream does not answer."""

    default_remedy = "start NATS on its machine with `membridge up`, or set MEMBRIDGE_NATS_URL to a server that runs"


class StoreUnavailableError(UnavailableError):
    """The object store does not answer."""

    default_remedy = "run `membridge doctor`"


class NoResponderError(UnavailableError):
    """No process answers on that subject."""


class OverloadedError(UnavailableError):
    """More requests at once than are accepted."""

    code = ErrorCode.RATE_LIMITED
    default_remedy = "try again later"

    def __init__(self, message: str, *, seconds: float | None = None) -> None:
        super().__init__(message)
        #: How long to wait until the next try, where that is known.
        self.seconds = seconds


class DeadlineExceededError(MembridgeError):
    """An operation took longer than its deadline."""

    code = ErrorCode.DEADLINE_EXCEEDED
    default_remedy = "try again; if that does not help run `membridge doctor`"


class RemoteError(MembridgeError):
    """An error that another process replied; it has that process's code."""

    def __init__(self, reply: ErrorReply) -> None:
        super().__init__(reply.message, remedy=reply.remedy, field=reply.field)
        self.code = reply.code  # type: ignore[misc]  # each instance has the remote code
        self.request_id = reply.request_id
