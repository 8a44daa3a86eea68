"""Publish each change of leadership as an event: best effort, in order, and never in the way of a renewal.

An event tells people and audits; no decision waits for one. What cannot be published is logged and dropped.
"""

import asyncio
import secrets

from membridge.aio.deadline import Deadline
from membridge.bus.connection import Bus
from membridge.errors import MembridgeError
from membridge.system import clock
from membridge.system.logging import get_logger
from schemas import subjects
from schemas.events import LeadershipChanged, encode_event
from schemas.identity import NodeId, ProjectId

log = get_logger("membridge.leadership")

#: Events that may wait for the bus; a change of leadership is rare.
BOUND = 32
#: Seconds one event may take.
PUBLISH = 2.0


class Announcer:
    """Events about one project's leadership, as this node makes them."""

    def __init__(self, bus: Bus, project: ProjectId, node: NodeId) -> None:
        self._bus, self._project, self._node = bus, project, node
        self._waiting: asyncio.Queue[LeadershipChanged] = asyncio.Queue(BOUND)

    def announce(self, epoch: int, primary: NodeId | None, reason: str, *, issued_by: str = "") -> None:
        """Have it published that `primary` leads under `epoch`, or with None that the term of `epoch` is over."""
        log.info("leadership changed", project=self._project, epoch=epoch, primary=primary, reason=reason, by=issued_by)
        event = LeadershipChanged(
            project=self._project,
            node=self._node,
            at=clock.stamp(),
            epoch=epoch,
            primary=primary,
            reason=reason,
            issued_by=issued_by,
        )
        if self._waiting.full():
            log.warning("event dropped, too many wait", project=self._project, epoch=epoch)
            return
        self._waiting.put_nowait(event)

    async def run(self) -> None:
        """Publish what is announced until cancelled."""
        while True:
            await self._publish(await self._waiting.get(), Deadline.after(PUBLISH))

    async def finish(self, *, deadline: Deadline) -> None:
        """Publish what still waits."""
        while not self._waiting.empty():
            await self._publish(self._waiting.get_nowait(), deadline)

    async def _publish(self, event: LeadershipChanged, deadline: Deadline) -> None:
        subject = subjects.fill(subjects.EVENT, project=self._project, kind="leadership_changed", node=self._node)
        try:
            await self._bus.stream_publish(
                subject, encode_event(event), message_id=secrets.token_hex(16), deadline=deadline
            )
        except MembridgeError as error:
            log.warning("event not published", project=self._project, reason=error.message)
