"""Watch one key of a bucket: what it is now, every change of it, and whether its end was a release.

States are compared whole, because revisions start again when a store is wiped. Whoever deletes an entry says which
revision; only that tells a release, after which the next may begin at once, from an entry that expired or was lost.
An expiry is announced to nobody but consumers, so the state is read again now and then too.
"""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Generic, TypeVar

from membridge.aio.deadline import Deadline
from membridge.bus.kv import Entry, Kv
from membridge.bus.message import Message
from membridge.errors import CorruptObjectError, MembridgeError
from membridge.system.logging import get_logger
from schemas.wire import Wire

V = TypeVar("V", bound=Wire)

log = get_logger("membridge.bus")

#: Seconds between two looks without any news, at a key whose entry may expire and at one whose entry stays: changes of
#: both are announced, and every reconnect looks again.
LOOK, LOOK_AT_LASTING = 2.0, 30.0
#: Seconds one look may take, unless told.
READ = 5.0
#: Seconds until the second look after news that changed nothing yet; each further pause is twice as long.
AGAIN = 0.01


@dataclass(frozen=True, slots=True)
class Change(Generic[V]):
    """The entry now, None when there is none; `released` when whoever held the last one deleted it."""

    entry: Entry[V] | None
    initial: bool
    released: bool


@dataclass(slots=True)
class _News:
    """What messages said of the key's past: the newest revision that was deleted, and that anything came after."""

    deleted: int = 0
    followed: int = 0

    def take(self, message: Message) -> None:
        """Take in a message; it names the revision that it writes over, or none."""
        expected = message.headers.get("Nats-Expected-Last-Subject-Sequence", "")
        revision = int(expected) if expected.isdigit() else 0
        self.followed = max(self.followed, revision)
        if message.headers.get("KV-Operation") == "DEL":
            self.deleted = max(self.deleted, revision)

    def forget(self, revision: int) -> None:
        """Drop what was said of the time before `revision`, all of it for 0: a wiped store counts from one again."""
        self.deleted = self.deleted if 0 < revision <= self.deleted else 0
        self.followed = self.followed if 0 < revision <= self.followed else 0


async def watch(kv: Kv[V], key: str, *, read: float = READ) -> AsyncGenerator[Change[V]]:
    """Yield what `key` is, then what it has become after each change; one look may take `read` seconds.

    Changes that follow each other closely, or that came while the connection was down, are seen as one.
    """
    known: Entry[V] | None = None
    # A leaf passes on no news of its hub's buckets.
    told = kv.bucket.ttl is None and kv.bus.options.domain is None
    most = LOOK_AT_LASTING if told else LOOK
    initial, unreadable, pause = True, False, most
    said = _News()
    async with kv.bus.subscribe(kv.subject(key)) as news:
        while True:
            try:
                entry = await kv.get(key, deadline=Deadline.after(read))
            except CorruptObjectError as error:
                if not unreadable:
                    log.warning("entry cannot be read", key=key, reason=error.message)
                unreadable, pause = True, min(pause, LOOK)
            except MembridgeError:
                # Down, or without its bucket: what was seen last stays true until something else is seen.
                pause = min(pause, LOOK)
            else:
                if initial or entry != known:
                    released = entry is None and known is not None and said.deleted >= known.revision
                    yield Change(entry, initial, released)
                    known, initial, unreadable = entry, False, False
                    revision = 0 if entry is None else entry.revision
                    # News of what follows this entry came before the store had it; nobody tells it again.
                    pause = AGAIN if 0 < revision <= said.followed else most
                    said.forget(revision)
            try:
                async with asyncio.timeout(pause):
                    message = await news.next()
            except TimeoutError:
                pause = min(2 * pause, most)
                continue
            # News may be faster than the store that it speaks of.
            pause = AGAIN
            while message is not None:
                said.take(message)
                message = news.next_nowait()
