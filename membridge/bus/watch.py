"""Watch one key of a bucket: its value now, every change of it, and whether its end was a release.

Entries are compared whole, because revisions start again when a store is wiped. A deletion names its revision; only
that distinguishes a release, after which the next holder may begin at once, from an entry that expired or was lost. The
server announces expiry only to consumers, so the entry is also read now and then.
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

#: Seconds between two reads without news, of an entry that may expire and of one that lasts: changes of both are
#: announced, and every reconnect reads again.
LOOK, LOOK_AT_LASTING = 2.0, 30.0
#: Seconds that one read may take by default.
READ = 5.0
#: Seconds until the second read after news that changed nothing yet; each further pause is twice as long.
AGAIN = 0.01


@dataclass(frozen=True, slots=True)
class Change(Generic[V]):
    """The entry now, None when there is none; `released` if the holder of the last one deleted it."""

    entry: Entry[V] | None
    initial: bool
    released: bool


@dataclass(slots=True)
class _News:
    """What messages announced about the key: the newest deleted revision, and the newest that another entry follows."""

    deleted: int = 0
    followed: int = 0

    def take(self, message: Message) -> None:
        """Note a message; it names the revision that it writes over, or none."""
        expected = message.headers.get("Nats-Expected-Last-Subject-Sequence", "")
        revision = int(expected) if expected.isdigit() else 0
        self.followed = max(self.followed, revision)
        if message.headers.get("KV-Operation") == "DEL":
            self.deleted = max(self.deleted, revision)

    def forget(self, revision: int) -> None:
        """Drop what is older than `revision`, everything for 0: a wiped store counts from one again."""
        self.deleted = self.deleted if 0 < revision <= self.deleted else 0
        self.followed = self.followed if 0 < revision <= self.followed else 0


async def watch(kv: Kv[V], key: str, *, read: float = READ) -> AsyncGenerator[Change[V]]:
    """Yield the entry of `key` now and after each change; one read may take `read` seconds.

    Changes in quick succession, or while the connection is down, are seen as one.
    """
    known: Entry[V] | None = None
    # A leaf does not pass on news of its hub's buckets.
    announced = kv.bucket.ttl is None and kv.bus.options.domain is None
    most = LOOK_AT_LASTING if announced else LOOK
    initial, unreadable, pause = True, False, most
    notes = _News()
    async with kv.bus.subscribe(kv.subject(key)) as news:
        while True:
            try:
                entry = await kv.get(key, deadline=Deadline.after(read))
            except CorruptObjectError as error:
                if not unreadable:
                    log.warning("entry cannot be read", key=key, reason=error.message)
                unreadable, pause = True, min(pause, LOOK)
            except MembridgeError:
                # The connection is down, or the bucket is missing: the last entry counts until another is seen.
                pause = min(pause, LOOK)
            else:
                if initial or entry != known:
                    released = entry is None and known is not None and notes.deleted >= known.revision
                    yield Change(entry, initial, released)
                    known, initial, unreadable = entry, False, False
                    revision = 0 if entry is None else entry.revision
                    # News of this entry's successor came before the store had it, and will not come again.
                    pause = AGAIN if 0 < revision <= notes.followed else most
                    notes.forget(revision)
            try:
                async with asyncio.timeout(pause):
                    message = await news.next()
            except TimeoutError:
                pause = min(2 * pause, most)
                continue
            # News can arrive before its message is stored.
            pause = AGAIN
            while message is not None:
                notes.take(message)
                message = news.next_nowait()
