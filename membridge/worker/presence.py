"""Publishes the presence of this node's worker: every ten seconds, at each change, and when a coordinator calls.

It goes over the connection on which orders arrive, so it shows that this connection works. No stream keeps it: a
coordinator that begins to schedule calls all workers.
"""

import asyncio
from collections.abc import Awaitable, Callable

from msgspec.structs import replace

from membridge.aio.deadline import comes_within
from membridge.aio.lifecycle import Ready
from membridge.bus.connection import Bus
from membridge.bus.publisher import tell
from membridge.bus.subscription import Subscription
from membridge.errors import MembridgeError
from membridge.system.logging import get_logger
from schemas import subjects
from schemas.identity import NodeId
from schemas.node import NodePresence
from schemas.wire import encode

log = get_logger("membridge.worker")

#: Seconds between two messages when nothing changes.
EVERY = 10.0


class PresencePublisher:
    """Publishes the presence of one worker, which `describe` returns."""

    def __init__(self, bus: Bus, node: NodeId, describe: Callable[[], Awaitable[NodePresence]]) -> None:
        self._bus, self._describe = bus, describe
        self._subject = subjects.fill(subjects.WORKER_PRESENCE, worker=node)
        self._changed = asyncio.Event()
        self._said: NodePresence | None = None

    def touch(self) -> None:
        """Publish again soon: something changed."""
        self._changed.set()

    async def run(self, ready: Ready) -> None:
        """Publish until cancelled; then publish that the worker is gone."""
        try:
            async with self._bus.subscribe(subjects.ROLL_CALL) as calls, asyncio.TaskGroup() as group:
                group.create_task(self._hear(calls), name="roll calls")
                group.create_task(self._hear_reconnects(), name="new connections")
                await self._say(self._describe)
                ready()
                while True:
                    await comes_within(self._changed, EVERY)
                    self._changed.clear()
                    await self._say(self._describe)
        finally:
            await self._say(self._goodbye)

    async def _hear(self, calls: Subscription) -> None:
        async for _ in calls:
            self.touch()

    async def _hear_reconnects(self) -> None:
        generation = self._bus.generation
        while True:
            generation = await self._bus.wait_generation(generation)
            self.touch()

    async def _goodbye(self) -> NodePresence:
        return replace(self._said or await self._describe(), worker=None)

    async def _say(self, described: Callable[[], Awaitable[NodePresence]]) -> None:
        try:
            self._said = await described()
        except MembridgeError as error:
            log.info("worker presence not known", reason=error.message)
            return
        await tell(self._bus, self._subject, encode(self._said))
