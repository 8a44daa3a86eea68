"""Watch one key of a bucket: what it is now, every change of it, and whether its end was a release.

States are compared whole, because revisions start again when a store is wiped. Whoever deletes an entry says which
revision; only that tells a release, after which the next may begin at once, from an entry that expired or was lost.
An expiry is announced to nobody but consumers, so the state is read again now and then too.
"""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Generic, TypeVar

from membridge.bus.kv import Entry, Kv
from membridge.bus.message import Message
from membridge.deadline import Deadline
from membridge.errors import CorruptObjectError, MembridgeError
from membridge.logging import get_logger
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


async def watch(kv: Kv[V], key: str, *, read: float = READ) -> AsyncGenerator[Change[V]]:
    """Yield what `key` is, then what it has become after each change; one look may take `read` seconds.

    Changes that follow each other closely, or that came while the connection was down, are seen as one.
    """
    known: Entry[V] | None = None
    # A leaf passes on no news of its hub's buckets.
    told = kv.bucket.ttl is None and kv.bus.options.domain is None
    most = LOOK_AT_LASTING if told else LOOK
    initial, unreadable, deleted, pause = True, False, 0, most
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
                    released = entry is None and known is not None and deleted >= known.revision
                    yield Change(entry, initial, released)
                    known, initial, unreadable, pause = entry, False, False, most
                    if entry is None or entry.revision > deleted:
                        deleted = 0
            try:
                async with asyncio.timeout(pause):
                    message = await news.next()
            except TimeoutError:
                pause = min(2 * pause, most)
                continue
            # News may be faster than the store that it speaks of.
            pause = AGAIN
            while message is not None:
                deleted = max(deleted, _deleted_revision(message))
                message = news.next_nowait()


def _deleted_revision(message: Message) -> int:
    """Return the revision that `message` deletes, 0 when it deletes none in particular."""
    expected = message.headers.get("Nats-Expected-Last-Subject-Sequence", "")
    deletes = message.headers.get("KV-Operation") == "DEL" and expected.isdigit()
    return int(expected) if deletes else 0
