"""Hold a key of a bucket by renewing it: acquire, renew, release, even if an answer is lost.

Each holder's value has its own nonce. A write without an answer is repeated on the same revision: at most one of the
two can be stored, and if the key has moved, the nonce shows whether by our write. Only another holder's value, or none,
is a loss. Times come from a clock that runs through suspend and are taken before a write is sent, so a holder never
believes in a lease longer than its entry lives.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from membridge.aio.deadline import Deadline
from membridge.bus.kv import Entry, Kv
from membridge.errors import DeadlineExceededError, RevisionMovedError
from membridge.system.boottime import boottime
from schemas.wire import Wire

V = TypeVar("V", bound=Wire)

#: Tries of one write.
TRIES = 4


class LeaseGoneError(RevisionMovedError):
    """The entry is gone and no other process has written one: it expired, or its bucket was lost."""


@dataclass(frozen=True, slots=True)
class Held(Generic[V]):
    """A lease of ours: its value, its revision, and when its write was sent."""

    value: V
    revision: int
    sent_at: float


@dataclass(frozen=True, slots=True)
class _Unsettled(Generic[V]):
    """An acquiring write of which it is not known yet whether it was stored."""

    value: V
    over: Entry[V] | None


class Lease(Generic[V]):
    """One key, for one holder. `nonce` returns the nonce in a value."""

    def __init__(self, kv: Kv[V], key: str, *, nonce: Callable[[V], str], now: Callable[[], float] = boottime) -> None:
        self.kv, self.key, self.now = kv, key, now
        self._nonce = nonce
        #: Seconds that an entry lives, None for the bucket's TTL.
        self._ttl: float | None = None
        self.held: Held[V] | None = None
        self._unsettled: _Unsettled[V] | None = None

    async def read(self, *, deadline: Deadline) -> Entry[V] | None:
        """Return the entry."""
        return await self.kv.get(self.key, deadline=deadline)

    async def acquire(
        self, value: V, over: Entry[V] | None, *, ttl: float | None = None, deadline: Deadline
    ) -> Held[V]:
        """Write `value` for `ttl` seconds in place of `over`; raise RevisionMovedError if another holder was first.

        After any other failure, and after a cancellation, `release` undoes a write that may have been stored.
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
        """Renew the held lease with `value`; raise RevisionMovedError when it is another holder's or gone."""
        if self.held is None:
            raise LeaseGoneError(f"this process does not hold the lease {self.kv.bucket.name}.{self.key}")
        self.held = await self._write(value, self.held.revision, deadline=deadline)
        return self.held

    async def release(self, *, deadline: Deadline) -> bool:
        """Delete the entry if it is ours, also if its write was never confirmed; return whether it was."""
        held, unsettled = self.held, self._unsettled
        self.held = self._unsettled = None
        if unsettled is not None:
            # The same write again arrives after the first one, which may still be on its way.
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
                entry = await self.kv.get_after(self.key, revision or 0, deadline=deadline)
                if entry is None:
                    raise LeaseGoneError(
                        f"the lease {self.kv.bucket.name}.{self.key} expired, or its bucket was lost"
                    ) from error
                if self._nonce(entry.value) != ours:
                    raise
                # Ours, by a write whose answer was lost. Written again, because its time is not known here.
                revision = entry.revision
            except DeadlineExceededError:
                if deadline.passed or left == 1:
                    raise
            else:
                return Held(value, written, sent_at)
        raise DeadlineExceededError(f"writing the lease {self.kv.bucket.name}.{self.key} took too long")

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
