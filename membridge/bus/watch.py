"""Watch a key of a bucket: what it is now, then every change, reconciled after a reconnect.

A change is seen by comparing states, so nothing that happened while we were away is missed for good. An expiry is
announced to nobody but consumers, so the state is read again now and then too.
"""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Generic, TypeVar

from membridge.bus.kv import Entry, Kv
from membridge.deadline import Deadline
from membridge.errors import MembridgeError
from schemas.wire import Wire

V = TypeVar("V", bound=Wire)

#: Seconds between two looks without any news: only expiries come that way.
LOOK = 2.0
READ = 5.0


@dataclass(frozen=True, slots=True)
class Change(Generic[V]):
    """The key's entry, None when there is none."""

    key: str
    entry: Entry[V] | None
    initial: bool


async def watch(kv: Kv[V], key: str) -> AsyncGenerator[Change[V]]:
    """Yield the state of `key`, then each change of it."""
    known: Entry[V] | None = None
    initial = True
    async with kv.bus.subscribe(kv.subject(key)) as news:
        while True:
            try:
                entry = await kv.get(key, deadline=Deadline.after(READ))
            except MembridgeError:
                entry = known
            else:
                # Not the revision alone: a server that lost its memory counts from one again.
                if initial or entry != known:
                    yield Change(key, entry, initial)
                    known, initial = entry, False
            try:
                async with asyncio.timeout(LOOK):
                    await news.next()
                # One look answers for all that has come by now.
                while news.next_nowait() is not None:
                    pass
            except TimeoutError:
                continue
