"""Publish an event, best effort: a failure is logged and nothing depends on it."""

import secrets

from membridge.aio.deadline import Deadline
from membridge.bus.connection import Bus
from membridge.errors import MembridgeError
from membridge.system.logging import get_logger
from schemas import subjects
from schemas.events import Event, encode_event

log = get_logger("membridge.bus")

#: Seconds that publishing an event may take.
EVENT_DEADLINE = 2.0


async def announce(bus: Bus, event: Event) -> None:
    """Publish an event of a project. A failure is logged, not raised."""
    kind = str(event.__struct_config__.tag).rpartition(".")[2]
    subject = subjects.fill(subjects.EVENT, project=event.project, kind=kind, node=event.node)
    try:
        await bus.stream_publish(
            subject,
            encode_event(event),
            message_id=secrets.token_hex(16),
            deadline=Deadline.after(EVENT_DEADLINE),
        )
    except MembridgeError as error:
        log.warning("event not published", kind=kind, reason=error.message)
