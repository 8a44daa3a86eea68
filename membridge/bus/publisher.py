"""Publish events, best effort: in order, never in the way of what they report.

An event tells people and audits; no decision waits for one. An event that finds the queue full, or that cannot be
published, is dropped and logged: quietly while the connection is down, which the bus has logged itself.
"""

import asyncio
import secrets
from dataclasses import dataclass

from membridge.aio.deadline import Deadline
from membridge.aio.lifecycle import Ready
from membridge.bus import jetstream
from membridge.bus.connection import Bus
from membridge.errors import MembridgeError
from membridge.system.logging import get_logger
from schemas import streams, subjects
from schemas.events import Event, decode_event, encode_event

log = get_logger("membridge.bus")

#: Seconds that publishing an event may take.
EVENT_DEADLINE = 2.0
#: Events that may wait for the bus.
BOUND = 1_024


@dataclass(frozen=True, slots=True)
class _Message:
    subject: str
    body: bytes
    #: Whether a stream keeps it: then JetStream acknowledges it.
    kept: bool


class Publisher:
    """A bounded queue of events, published by `run`. The newest are dropped when it is full."""

    def __init__(self, bus: Bus, *, bound: int = BOUND) -> None:
        self._bus = bus
        self._waiting: asyncio.Queue[_Message] = asyncio.Queue(bound)

    def announce(self, event: Event) -> None:
        """Queue a project's event for the stream of events."""
        self._put(_of(event))

    def tell(self, subject: str, body: bytes) -> None:
        """Queue a message for those that listen now."""
        self._put(_Message(subject, body, kept=False))

    async def run(self, ready: Ready = lambda: None) -> None:
        """Publish what is queued until cancelled."""
        ready()
        while True:
            await _publish(self._bus, await self._waiting.get())

    async def finish(self, *, deadline: Deadline) -> None:
        """Publish what still waits."""
        while not self._waiting.empty():
            await _publish(self._bus, self._waiting.get_nowait(), deadline)

    def _put(self, message: _Message) -> None:
        if self._waiting.full():
            log.info("event dropped, too many wait", subject=message.subject)
            return
        self._waiting.put_nowait(message)


async def announce(bus: Bus, event: Event) -> None:
    """Publish a project's event and wait until the stream of events has it. A failure is logged, not raised."""
    await _publish(bus, _of(event))


async def store(bus: Bus, event: Event, *, message_id: str, deadline: Deadline) -> None:
    """Store a project's event in the stream of events, once for each `message_id`.

    Errors: those of `stream_publish`; without an answer it may be stored or not, and may be stored again.
    """
    message = _of(event)
    await bus.stream_publish(message.subject, message.body, message_id=message_id, deadline=deadline)


async def last(bus: Bus, event: Event, *, deadline: Deadline) -> Event | None:
    """Return the last event that the stream of events has on the subject of `event`. Errors: those of the bus."""
    message = await jetstream.last_of(bus, streams.EVENTS.name, _of(event).subject, deadline=deadline)
    return None if message is None else decode_event(message.body)


async def tell(bus: Bus, subject: str, body: bytes) -> None:
    """Publish a message for those that listen now. A failure is logged, not raised."""
    await _publish(bus, _Message(subject, body, kept=False))


def _of(event: Event) -> _Message:
    kind = str(event.__struct_config__.tag).rpartition(".")[2]
    subject = subjects.fill(subjects.EVENT, project=event.project, kind=kind, node=event.node)
    return _Message(subject, encode_event(event), kept=True)


async def _publish(bus: Bus, message: _Message, deadline: Deadline | None = None) -> None:
    try:
        if message.kept:
            deadline = deadline or Deadline.after(EVENT_DEADLINE)
            await bus.stream_publish(message.subject, message.body, message_id=secrets.token_hex(16), deadline=deadline)
        else:
            await bus.publish(message.subject, message.body)
    except MembridgeError as error:
        write = log.info if bus.connected else log.debug
        write("event not published", subject=message.subject, reason=error.message)
