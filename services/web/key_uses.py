"""When each API key was last used: kept for people, exact to a minute, and never in the way of a request."""

import asyncio
import time

from membridge.aio.backoff import Backoff
from membridge.aio.deadline import Deadline
from membridge.aio.lifecycle import Ready
from membridge.bus.kv import Kv
from membridge.errors import MembridgeError
from membridge.system import clock
from membridge.system.logging import get_logger
from membridge.wiring.api_keys import last_uses
from schemas.web import KeyUse

log = get_logger("membridge.web")

#: Seconds within which further uses of a key are not written.
EVERY = 60.0
#: Seconds that writing one may take, and between two tries, at first and at most.
WRITE, FIRST_PAUSE, MOST_PAUSE = 5.0, 1.0, 60.0


class KeyUses:
    """The uses of issued keys on this server; `run` writes them down."""

    def __init__(self, kv: Kv[KeyUse]) -> None:
        self._kv = kv
        self._noted: dict[str, float] = {}
        self._unwritten: dict[str, str] = {}
        self._news = asyncio.Event()

    def note(self, key_id: str) -> None:
        """Note that a key is used now."""
        now = time.monotonic()
        if now - self._noted.get(key_id, -EVERY) >= EVERY:
            self._noted[key_id], self._unwritten[key_id] = now, clock.stamp()
            self._news.set()

    async def times(self, *, deadline: Deadline) -> dict[str, str]:
        """Return when each key was last used, on any server. Errors: those of the bus."""
        return {**await last_uses(self._kv, deadline=deadline), **self._unwritten}

    async def run(self, ready: Ready) -> None:
        """Write uses until cancelled; what cannot be written waits, one time a key."""
        ready()
        backoff = Backoff(FIRST_PAUSE, MOST_PAUSE)
        while True:
            await self._news.wait()
            self._news.clear()
            try:
                await self._write()
            except MembridgeError as error:
                log.warning("uses of keys not kept", reason=error.message)
                self._news.set()
                await asyncio.sleep(backoff.failed())
            else:
                backoff.reset()

    async def _write(self) -> None:
        for key_id, at in list(self._unwritten.items()):
            await self._kv.put(key_id, KeyUse(at=at), deadline=Deadline.after(WRITE))
            if self._unwritten.get(key_id) == at:
                del self._unwritten[key_id]
