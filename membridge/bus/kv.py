"""Typed KV buckets with compare-and-set; every write has a TTL.

Built on the stream below a bucket, because nats-py's KV loses TTLs on update and reads an expiry marker as a value.
Reads are direct and may be behind, so only a compare-and-set may decide.
"""

import asyncio
import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, TypeVar

from membridge.aio.deadline import Deadline
from membridge.bus import jetstream
from membridge.bus.connection import Bus
from membridge.bus.jetstream import StreamConfig
from membridge.bus.message import Message
from membridge.errors import (
    CorruptObjectError,
    DeadlineExceededError,
    MembridgeError,
    RevisionMovedError,
    UnavailableError,
)
from schemas.buckets import Bucket
from schemas.identity import token
from schemas.wire import Wire, WireError, decode, encode

V = TypeVar("V", bound=Wire)

#: Largest value of a bucket.
MAX_VALUE = 1 << 20
#: Seconds for which a bucket with expiring entries keeps the tombstone of a deleted one.
TOMBSTONE_TTL = 60
#: Seconds to find out what became of a write whose answer did not come: the writer's own deadline may have passed.
LOOK = 10.0
#: Reads of an entry that should have moved, and seconds until the first repeat: a replica may be behind.
TRIES, BEHIND = 4, 0.02


@dataclass(frozen=True, slots=True)
class Entry(Generic[V]):
    """A value, and its revision for the next compare-and-set."""

    key: str
    value: V
    revision: int


class Kv(Generic[V]):
    """An opened bucket."""

    def __init__(self, bus: Bus, bucket: Bucket[V]) -> None:
        self.bus, self.bucket = bus, bucket
        self.stream = f"KV_{bucket.name}"

    async def get(self, key: str, *, deadline: Deadline) -> Entry[V] | None:
        """Return the entry, None when there is none, it was deleted or it expired."""
        message = await jetstream.last_of(self.bus, self.stream, self.subject(key), deadline=deadline)
        return None if message is None else self._entry(key, message)

    async def create(self, key: str, value: V, *, ttl: float | None = None, deadline: Deadline) -> int:
        """Write a key that does not exist; raise RevisionMovedError when it does."""
        message = await jetstream.last_of(self.bus, self.stream, self.subject(key), deadline=deadline)
        last = 0
        if message is not None and _is_gone(message):
            last = jetstream.sequence_of(message)
        return await self._write(key, encode(value), last, ttl, deadline=deadline)

    async def update(self, key: str, value: V, *, revision: int, ttl: float | None = None, deadline: Deadline) -> int:
        """Write a key that is still at `revision`; raise RevisionMovedError when it moved."""
        return await self._write(key, encode(value), revision, ttl, deadline=deadline)

    async def move(self, key: str, value: V, *, revision: int, nonce: Callable[[V], str], deadline: Deadline) -> int:
        """Write a key that is still at `revision`, 0 for one that does not exist; return its new revision.

        `nonce` returns the nonce in a value. An entry with the nonce of `value` is this write, whatever the answer was:
        the answer was lost, or another process wrote the same value for us. Errors: RevisionMovedError when another
        writer was first; then nothing changed. After any other error the value may or may not be stored.
        """
        try:
            if revision:
                return await self.update(key, value, revision=revision, deadline=deadline)
            return await self.create(key, value, deadline=deadline)
        except (RevisionMovedError, UnavailableError, DeadlineExceededError):
            with suppress(MembridgeError):
                entry = await self.get_after(key, revision, deadline=Deadline.after(LOOK))
                if entry is not None and nonce(entry.value) == nonce(value):
                    return entry.revision
            raise

    async def get_after(self, key: str, revision: int, *, deadline: Deadline) -> Entry[V] | None:
        """Return the entry after `revision`, when it should have moved. Still the old one if it has not."""
        entry = await self.get(key, deadline=deadline)
        for repeat in range(TRIES - 1):
            if entry is not None and entry.revision > revision:
                break
            await asyncio.sleep(BEHIND * 2**repeat)
            entry = await self.get(key, deadline=deadline)
        # A bucket that was made anew has smaller revisions: its entry counts all the same.
        return entry

    async def put(self, key: str, value: V, *, ttl: float | None = None, deadline: Deadline) -> int:
        """Write a key, whatever its value is now."""
        return await self._write(key, encode(value), None, ttl, deadline=deadline)

    async def delete(self, key: str, *, revision: int | None = None, deadline: Deadline) -> None:
        """Delete a key; with `revision` only if it is still at that revision."""
        headers = {"KV-Operation": "DEL"}
        if self.bucket.ttl is not None:
            headers["Nats-TTL"] = f"{TOMBSTONE_TTL}s"
        if revision is not None:
            headers["Nats-Expected-Last-Subject-Sequence"] = str(revision)
        await self.bus.store(self._written(key), b"", headers=headers, deadline=deadline)

    async def entries(self, prefix: str = "", *, deadline: Deadline) -> dict[str, Entry[V]]:
        """Return every entry whose key begins with `prefix`, without those that cannot be read."""
        found: dict[str, Entry[V]] = {}
        last: dict[str, Message] = {}
        async for message in jetstream.read_from(
            self.bus, self.stream, f"$KV.{self.bucket.name}.>", start=1, deadline=deadline
        ):
            last[jetstream.subject_of(message).removeprefix(f"$KV.{self.bucket.name}.")] = message
        for key, message in last.items():
            if key.startswith(prefix):
                try:
                    entry = self._entry(key, message)
                except CorruptObjectError:
                    continue
                if entry is not None:
                    found[key] = entry
        return found

    def subject(self, key: str) -> str:
        """Return the subject of a key; each part of it is one token."""
        return f"$KV.{self.bucket.name}." + ".".join(token(part, "key") for part in key.split("."))

    def pattern(self) -> str:
        """Return the subject of all keys."""
        return f"$KV.{self.bucket.name}.>"

    def _written(self, key: str) -> str:
        """Return the subject to write a key to; a leaf reaches another domain's bucket only through that API."""
        subject = self.subject(key)
        return f"{self.bus.options.api}.{subject}" if self.bus.options.domain else subject

    async def _write(self, key: str, body: bytes, last: int | None, ttl: float | None, *, deadline: Deadline) -> int:
        headers: dict[str, str] = {}
        if last is not None:
            headers["Nats-Expected-Last-Subject-Sequence"] = str(last)
        lives = self.bucket.ttl if ttl is None else ttl
        if lives is not None:
            # Whole seconds, rounded up: no lease may end before its holder expects it.
            headers["Nats-TTL"] = f"{max(1, math.ceil(lives))}s"
        return await self.bus.store(self._written(key), body, headers=headers, deadline=deadline)

    def _entry(self, key: str, message: Message) -> Entry[V] | None:
        if _is_gone(message):
            return None
        try:
            value = decode(message.body, self.bucket.value, limit=MAX_VALUE)
        except WireError as error:
            raise CorruptObjectError(
                f"entry {key} of bucket {self.bucket.name} cannot be read: {error}",
                remedy="upgrade membridge on this node if another node runs a newer version",
            ) from error
        return Entry(key, value, jetstream.sequence_of(message))


async def open_bucket(bus: Bus, bucket: Bucket[V], *, replicas: int, deadline: Deadline) -> Kv[V]:
    """Create the bucket unless it is there, and return it."""
    config = StreamConfig(
        name=f"KV_{bucket.name}",
        subjects=[f"$KV.{bucket.name}.>"],
        num_replicas=replicas,
        max_bytes=bucket.max_bytes,
        max_msgs_per_subject=bucket.history,
        allow_msg_ttl=bucket.ttl is not None,
        # The server allows markers only with roll-ups.
        allow_rollup_hdrs=bucket.announced,
        subject_delete_marker_ttl=jetstream.nanoseconds(TOMBSTONE_TTL) if bucket.announced else 0,
    )
    await jetstream.ensure_stream(bus, config, deadline=deadline)
    return Kv(bus, bucket)


def _is_gone(message: Message) -> bool:
    return "Nats-Marker-Reason" in message.headers or message.headers.get("KV-Operation") in {"DEL", "PURGE"}
