"""The protocol of every object store. No backend, no bus, no rules.

`if_absent` makes an object immutable. Keys are checked here, before a backend sees them. No key may lie below another
one (`a` and `a/b`): MinIO stores both and lists only the upper one.
"""

import re
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from membridge.aio.deadline import Deadline
from membridge.errors import InvalidRequestError, TooLargeError

#: Called with the bytes done and the bytes in all, 0 while unknown.
Progress = Callable[[int, int], None]

#: Largest body of `put` and `get`; larger objects are moved as files.
MAX_GET_BYTES = 16 << 20
_KEY = re.compile(r"[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*")
_PREFIX = re.compile(r"([A-Za-z0-9_.-]+/)*[A-Za-z0-9_.-]*")
MAX_KEY = 512


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """An object in a listing; `modified_at` is ISO 8601 UTC, for people."""

    key: str
    size_bytes: int
    modified_at: str | None = None


@dataclass(frozen=True, slots=True)
class StoreDescription:
    """A store: its kind, its address without secrets, and whether `if_absent` holds against concurrent writers.

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

        Some S3 servers accept several concurrent multipart uploads of one key: use `put` for what must be fenced.
        """
        ...

    async def download(
        self, key: str, target: Path, *, start: int = 0, deadline: Deadline, progress: Progress | None = None
    ) -> None:
        """Fetch an object into a file, streamed; `start` > 0 appends from that byte."""
        ...

    def list(self, prefix: str, *, after: str = "", deadline: Deadline) -> AsyncGenerator[ObjectInfo]:
        """Yield the objects whose key begins with `prefix` and is greater than `after`, in the order of keys.

        Reads on as the caller takes them: who ends early closes it.
        """
        ...

    async def delete(self, key: str, *, deadline: Deadline) -> None:
        """Delete an object; one that is gone already is fine."""
        ...

    async def head(self, key: str, *, deadline: Deadline) -> ObjectInfo | None:
        """Return an object's facts without its bytes, None when there is none."""
        ...

    async def share(self, key: str, *, seconds: int, deadline: Deadline) -> str | None:
        """Return a URL from which anybody can download an object for so long; None if the store has none."""
        ...

    async def describe(self, *, deadline: Deadline) -> StoreDescription:
        """Describe the store; the first call probes whether it honours `if_absent`."""
        ...

    async def warm(self) -> None:
        """Start what the next call needs, without waiting for it."""
        ...


def checked_key(key: str) -> str:
    """Return `key`, or raise InvalidRequestError for one that could escape the store."""
    if len(key) > MAX_KEY or not _KEY.fullmatch(key) or any(part in {".", ".."} for part in key.split("/")):
        raise InvalidRequestError(f"{key!r} is not a valid object key", field="key")
    return key


def checked_body(key: str, body: bytes) -> bytes:
    """Return `body`, or raise TooLargeError for one that must be uploaded as a file."""
    if len(body) > MAX_GET_BYTES:
        raise TooLargeError(f"object {key} has {len(body)} bytes, at most {MAX_GET_BYTES} are stored at once")
    return body


def checked_prefix(prefix: str) -> str:
    """Return `prefix`, or raise InvalidRequestError as `checked_key` does."""
    if len(prefix) > MAX_KEY or not _PREFIX.fullmatch(prefix) or ".." in prefix.split("/"):
        raise InvalidRequestError(f"{prefix!r} is not a valid beginning of object keys", field="prefix")
    return prefix
