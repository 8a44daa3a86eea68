"""Hold a key of a bucket by renewing it: acquire, renew, release, whichever answer is lost.

Each holder's value carries a nonce of its own. A write whose answer did not come is written again, on the same
revision: at most one of the two can be stored, and a key that has moved shows by its nonce whether that was ours. Only
another's value, or none, is a loss. Times are those of a clock that runs through suspend, taken before a write is sent:
what is believed of a lease never outlives its entry.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from membridge.aio.deadline import Deadline
from membridge.bus.kv import Entry, Kv
from membridge.errors import DeadlineExceededError, RevisionMovedError
from membridge.system.boottime import boottime
from schemas.wire import Wire

V = TypeVar("V", bound=Wire)

#: Times that one write or look is made, and seconds before a look is repeated that may be behind.
TRIES, BEHIND = 4, 0.02


class LeaseGoneError(RevisionMovedError):
    """The entry is gone and nobody else has written one: it expired, or its bucket was lost."""


@dataclass(frozen=True, slots=True)
class Held(Generic[V]):
    """A lease of ours: its value, its revision, and when the write that made it was sent."""

    value: V
    revision: int
    sent_at: float


@dataclass(frozen=True, slots=True)
class _Unsettled(Generic[V]):
    """A write that acquires, of which nobody knows yet whether it was stored."""

    value: V
    over: Entry[V] | None


class Lease(Generic[V]):
    """One key, as one holder writes it. `nonce` reads from a value whose it is."""

    def __init__(self, kv: Kv[V], key: str, *, nonce: Callable[[V], str], now: Callable[[], float] = boottime) -> None:
        self.kv, self.key, self.now = kv, key, now
        self._nonce = nonce
        #: Seconds that an entry lives, None for the bucket's own.
        self._ttl: float | None = None
        self.held: Held[V] | None = None
        self._unsettled: _Unsettled[V] | None = None

    async def read(self, *, deadline: Deadline) -> Entry[V] | None:
        """Return the entry."""
        return await self.kv.get(self.key, deadline=deadline)

    async def acquire(
        self, value: V, over: Entry[V] | None, *, ttl: float | None = None, deadline: Deadline
    ) -> Held[V]:
        """Write `value` for `ttl` seconds in place of `over`; raise RevisionMovedError when another wrote first.

        After any other failure, and after a cancellation, `release` takes back what may have been stored.
        """
        self.held, self._unsettled, self._ttl = None, _Unsettled(value, over), ttl
        try:
            held = await self._write(value, over.revision if over is not None else None, deadline=deadline)
        except RevisionMovedError:
            self._unsettled = None
            raise
        self.held, self._unsettled = held, None
        return held

    async def renew(self, value: V, *, deadline: Deadline) -> Held[V]:
        """Write the lease that is held again, as `value`; raise RevisionMovedError when it is another's or gone."""
        if self.held is None:
            raise LeaseGoneError(f"{self.key} is not held")
        self.held = await self._write(value, self.held.revision, deadline=deadline)
        return self.held

    async def release(self, *, deadline: Deadline) -> bool:
        """Delete the entry if it is ours, also one whose writing was never confirmed; return whether it was."""
        held, unsettled = self.held, self._unsettled
        self.held = self._unsettled = None
        if unsettled is not None:
            # The same write again comes after the one that may be on its way still.
            revision = unsettled.over.revision if unsettled.over is not None else None
            try:
                held = await self._write(unsettled.value, revision, deadline=deadline.sooner(deadline.remaining() / 2))
            except RevisionMovedError:
                return False
        return held is not None and await self._delete(held, deadline=deadline)

    async def _write(self, value: V, revision: int | None, *, deadline: Deadline) -> Held[V]:
        ours = self._nonce(value)
        for left in range(TRIES, 0, -1):
            sent_at = self.now()
            soon = deadline.sooner(deadline.remaining() / 2) if left > 1 else deadline
            try:
                if revision is None:
                    written = await self.kv.create(self.key, value, ttl=self._ttl, deadline=soon)
                else:
                    written = await self.kv.update(self.key, value, revision=revision, ttl=self._ttl, deadline=soon)
            except RevisionMovedError as error:
                entry = await self._moved(revision or 0, deadline=deadline)
                if entry is None:
                    raise LeaseGoneError(f"{self.key} is gone") from error
                if self._nonce(entry.value) != ours:
                    raise
                # Ours, by a write whose answer was lost. When that was sent is not known here: this one's is.
                revision = entry.revision
            except DeadlineExceededError:
                if deadline.passed or left == 1:
                    raise
            else:
                return Held(value, written, sent_at)
        raise DeadlineExceededError(f"writing {self.key} took too long")

    async def _moved(self, after: int, *, deadline: Deadline) -> Entry[V] | None:
        """Return the entry that came after revision `after`; a replica may be a moment behind."""
        entry: Entry[V] | None = None
        for repeat in range(TRIES):
            entry = await self.read(deadline=deadline)
            if entry is not None and entry.revision > after:
                return entry
            await asyncio.sleep(BEHIND * 2**repeat)
        # In a bucket that was made anew the numbers are smaller: what it holds is what counts.
        return entry

    async def _delete(self, held: Held[V], *, deadline: Deadline) -> bool:
        revision, tried = held.revision, False
        for left in range(TRIES, 0, -1):
            try:
                soon = deadline.sooner(deadline.remaining() / 2) if left > 1 else deadline
                await self.kv.delete(self.key, revision=revision, deadline=soon)
            except (RevisionMovedError, DeadlineExceededError) as error:
                if deadline.passed or left == 1:
                    raise
                lost = isinstance(error, DeadlineExceededError)
                entry = await self.read(deadline=deadline)
                if entry is None:
                    return tried or lost
                if self._nonce(entry.value) != self._nonce(held.value):
                    return False
                revision, tried = entry.revision, tried or lost
            else:
                return True
        return False
