"""A copy of a small bucket in memory: read whole at each change, so that a request never waits for it.

A change is seen within milliseconds. A copy that could not be read for a while is not answered from: what it would
allow may have been revoked.
"""

import time
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

from membridge.aio.deadline import Deadline
from membridge.aio.lifecycle import Ready
from membridge.bus.feed import NEWS, SOON
from membridge.bus.kv import Entry, Kv
from membridge.errors import MembridgeError, UnavailableError
from membridge.system.logging import get_logger
from schemas.wire import Wire

V = TypeVar("V", bound=Wire)

log = get_logger("membridge.web")

#: Seconds between two reads without news.
LOOK = 3.0
#: Seconds that one read may take, and after which a copy is too old to be trusted.
READ, STALE = 2.0, 10.0


class Mirror(Generic[V]):
    """The entries of a bucket by key; kept current by `run`."""

    def __init__(self, kv: Kv[V]) -> None:
        self._kv = kv
        self._entries: Mapping[str, Entry[V]] = {}
        self._read_at: float | None = None
        self._listeners: list[Callable[[], None]] = []

    @property
    def kv(self) -> Kv[V]:
        """The bucket itself, to write to."""
        return self._kv

    def listen(self, changed: Callable[[], None]) -> None:
        """Have `changed` called after every change."""
        self._listeners.append(changed)

    def entries(self) -> Mapping[str, Entry[V]]:
        """Return the entries. Raises UnavailableError when they are too old to be trusted."""
        if self._read_at is None or time.monotonic() - self._read_at > STALE:
            raise UnavailableError(f"bucket {self._kv.bucket.name} cannot be read at present", remedy="try again")
        return self._entries

    async def refresh(self) -> None:
        """Read the bucket now. Errors: those of the bus."""
        found = await self._kv.entries(deadline=Deadline.after(READ))
        changed, self._entries, self._read_at = found != self._entries, found, time.monotonic()
        if changed:
            for listener in self._listeners:
                listener()

    async def run(self, ready: Ready) -> None:
        """Keep the copy current until cancelled; ready after the first read."""
        pause, troubled = SOON, False
        async with self._kv.bus.subscribe(self._kv.pattern(), bound=NEWS) as news:
            while True:
                try:
                    await self.refresh()
                except MembridgeError as error:
                    if not troubled:
                        log.warning("bucket cannot be read", name=self._kv.bucket.name, reason=error.message)
                    troubled = True
                else:
                    troubled = False
                    ready()
                pause = SOON if await news.news_within(pause) else min(2 * pause, LOOK)
