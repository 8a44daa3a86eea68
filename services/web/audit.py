"""The audit: every change and refusal over HTTP with its caller, written before the answer is sent."""

import secrets
from collections.abc import Awaitable, Callable

from membridge.aio.deadline import Deadline
from membridge.bus.connection import Bus
from membridge.errors import MembridgeError
from membridge.system import clock
from membridge.system.logging import get_logger
from schemas import subjects
from schemas.web import AuditEntry
from schemas.wire import encode, storable
from services.web.routes import AnyRoute, Call

log = get_logger("membridge.web")

#: Seconds that writing an entry may take.
WRITE = 2.0

Audit = Callable[[AuditEntry], Awaitable[None]]


def stream_audit(bus: Bus) -> Audit:
    """Return a writer to the WEB_AUDIT stream. An entry that cannot be stored is logged whole; the answer stands."""

    async def add(entry: AuditEntry) -> None:
        subject = subjects.fill(subjects.WEB_AUDIT, by=entry.by.partition(":")[2] or entry.by)
        try:
            await bus.stream_publish(
                subject, encode(entry), message_id=secrets.token_hex(16), deadline=Deadline.after(WRITE)
            )
        except MembridgeError as error:
            log.exception("audit entry not kept", reason=error.message, line=encode(entry).decode())

    return add


def entry_of(route: AnyRoute, path: str, call: Call, outcome: str) -> AuditEntry:
    """Return the audit entry of a request."""
    return AuditEntry(
        at=clock.stamp(),
        action=route.name,
        path=storable(path)[:1_000],
        by=call.identity.actor,
        address=call.address[:100],
        request_id=call.request_id,
        outcome=outcome,
    )
