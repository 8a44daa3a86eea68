"""The entries of active leases in KV: for people who look, and for the next tenure, which trusts the server's clock.

SQL is the record. A lease that ends within a moment never has an entry: short tasks cost no write here. What is done to
one entry is done one after another, so that a write under way does not bring back an entry that was deleted.
"""

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial

from membridge.errors import MembridgeError
from membridge.system.logging import get_logger
from schemas.leases import Lease
from services.coordinator.port import Port

log = get_logger("membridge.coordinator")

#: Seconds that a lease lives before it is written to KV.
MOMENT = 1.0

Work = Callable[[], Coroutine[None, None, None]]
#: Starts what no request waits for.
InBackground = Callable[[Work], None]


class LeaseEntries:
    """Writes and deletes entries in the background."""

    def __init__(self, port: Port, in_background: InBackground) -> None:
        self._port, self._in_background = port, in_background
        self._loop = asyncio.get_running_loop()
        #: What will write the leases that have no entry yet.
        self._due: dict[str, asyncio.TimerHandle] = {}
        #: Leases whose entry is being written or deleted, and what is to follow: the last request counts.
        self._busy: set[str] = set()
        self._next: dict[str, Work] = {}

    def hold(self, lease: Lease) -> None:
        """Write a lease: a renewed one now, a new one when it has lived for a moment."""
        self._cancel(lease.id)
        if lease.last_heartbeat == lease.started_at:
            self._due[lease.id] = self._loop.call_later(MOMENT, self._write, lease)
        else:
            self._write(lease)

    def release(self, lease: Lease) -> None:
        """Delete the entry of a lease that ended; there is none if it was not written yet."""
        if not self._cancel(lease.id):
            self._follow(lease.id, partial(self._port.let_go, lease))

    def close(self) -> None:
        """Write nothing more."""
        for handle in self._due.values():
            handle.cancel()
        self._due.clear()

    def _write(self, lease: Lease) -> None:
        self._due.pop(lease.id, None)
        self._follow(lease.id, partial(self._port.hold, lease))

    def _follow(self, lease_id: str, work: Work) -> None:
        self._next[lease_id] = work
        if lease_id not in self._busy:
            self._busy.add(lease_id)
            self._in_background(partial(self._work, lease_id))

    async def _work(self, lease_id: str) -> None:
        while (work := self._next.pop(lease_id, None)) is not None:
            try:
                await work()
            except MembridgeError as error:
                log.debug("entry of a lease not written", name=lease_id, reason=error.message)
        self._busy.discard(lease_id)

    def _cancel(self, lease_id: str) -> bool:
        handle = self._due.pop(lease_id, None)
        if handle is not None:
            handle.cancel()
        return handle is not None
