"""What every object store can do: seven verbs and a description of itself. No backend, no bus, no rules.

Objects are immutable where the caller says so (`if_absent`); keys are confined here, before a backend sees them. No key
may lie below another one (`a` and `a/b`): MinIO stores both and lists only the upper one.
"""

import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from membridge.aio.deadline import Deadline
from membridge.errors import InvalidRequestError, TooLargeError

#: Told bytes done and bytes in all, 0 while unknown.
Progress = Callable[[int, int], None]

#: Largest body of `put` and `get`; larger objects are moved as files.
MAX_GET_BYTES = 16 << 20
_KEY = re.compile(r"[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*")
_PREFIX = re.compile(r"([A-Za-z0-9_.-]+/)*[A-Za-z0-9_.-]*")
MAX_KEY = 512


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """An object as a listing shows it; `modified_at` is ISO 8601 UTC, for people."""

    key: str
    size_bytes: int
    modified_at: str | None = None


@dataclass(frozen=True, slots=True)
class StoreDescription:
    """A store: its kind, where it is (no secret in it), and whether `if_absent` holds against concurrent writers.

    `encrypted_with` is the id of the key that encrypts writes, empty without encryption; `decrypted_with` are the ids
    of the other keys that can decrypt reads.
    """

    kind: str
    location: str
    conditional_put: bool
    encrypted_with: str = ""
    decrypted_with: tuple[str, ...] = ()


class ObjectStore(Protocol):
    """An object store. Every call ends by its deadline with DeadlineExceededError or StoreUnavailableError."""

    async def put(self, key: str, body: bytes, *, if_absent: bool = True, deadline: Deadline) -> None:
        """Store a small body; ObjectExistsError when `if_absent` and the key is taken, TooLargeError."""
        ...

    async def get(self, key: str, *, start: int = 0, length: int | None = None, deadline: Deadline) -> bytes:
        """Return an object's bytes from `start`, `length` of them; ObjectMissingError, TooLargeError."""
        ...

    async def upload(
        self, key: str, source: Path, *, if_absent: bool = True, deadline: Deadline, progress: Progress | None = None
    ) -> None:
        """Store a file, streamed in bounded memory; ObjectExistsError as `put`.

        Some S3 servers let several concurrent multipart uploads of one key pass: what must be fenced is `put`.
        """
        ...

    async def download(
        self, key: str, target: Path, *, start: int = 0, deadline: Deadline, progress: Progress | None = None
    ) -> None:
        """Fetch an object into a file, streamed; `start` > 0 appends from that byte."""
        ...

    def list(self, prefix: str, *, after: str = "", deadline: Deadline) -> AsyncIterator[ObjectInfo]:
        """Yield the objects whose key begins with `prefix` and is greater than `after`, in the order of keys."""
        ...

    async def delete(self, key: str, *, deadline: Deadline) -> None:
        """Delete an object; one that is gone already is fine."""
        ...

    async def head(self, key: str, *, deadline: Deadline) -> ObjectInfo | None:
        """Return what an object is without its bytes, None when there is none."""
        ...

    async def share(self, key: str, *, seconds: int, deadline: Deadline) -> str | None:
        """Return an address under which anybody can fetch an object for so long; None where the store gives none."""
        ...

    async def describe(self, *, deadline: Deadline) -> StoreDescription:
        """Return what the store is; the first call probes whether it honours `if_absent`."""
        ...

    async def warm(self) -> None:
        """Start what the next call will need, without waiting for it."""
        ...


def checked_key(key: str) -> str:
    """Return `key`, or raise InvalidRequestError for one that could leave its place."""
    if len(key) > MAX_KEY or not _KEY.fullmatch(key) or any(part in {".", ".."} for part in key.split("/")):
        raise InvalidRequestError(f"object key {key!r} is not allowed", field="key")
    return key


def checked_body(key: str, body: bytes) -> bytes:
    """Return `body`, or raise TooLargeError for one that goes up as a file."""
    if len(body) > MAX_GET_BYTES:
        raise TooLargeError(f"object {key} has {len(body)} bytes, more than {MAX_GET_BYTES} are not stored at once")
    return body


def checked_prefix(prefix: str) -> str:
    """Return `prefix`, or raise InvalidRequestError as `checked_key` does."""
    if len(prefix) > MAX_KEY or not _PREFIX.fullmatch(prefix) or ".." in prefix.split("/"):
        raise InvalidRequestError(f"object prefix {prefix!r} is not allowed", field="prefix")
    return prefix
