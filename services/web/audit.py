"""The audit: every change and refusal over HTTP with its caller, written before the answer is sent."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from membridge.aio.batches import Batches
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
#: Entries that are stored together at most, and how often that may be under way.
TOGETHER, AT_ONCE = 64, 2

Audit = Callable[[AuditEntry], Awaitable[None]]


def stream_audit(bus: Bus, group: asyncio.TaskGroup) -> Audit:
    """Return a writer to the WEB_AUDIT stream. An entry that cannot be stored is logged whole; the answer stands.

    What comes while an entry is stored goes together: like requests are one entry, because the server syncs its disk
    for each.
    """

    async def add_all(entries: Sequence[AuditEntry]) -> Sequence[None]:
        async with asyncio.TaskGroup() as writing:
            for entry in joined(entries):
                writing.create_task(_stored(bus, entry))
        return [None] * len(entries)

    batches: Batches[AuditEntry, None] = Batches(group, add_all, most=TOGETHER, at_once=AT_ONCE)

    async def add(entry: AuditEntry) -> None:
        # Also for a request that is cut off meanwhile: what it changed is changed.
        await asyncio.wait({batches.answer(entry)})

    return add


def joined(entries: Sequence[AuditEntry]) -> list[AuditEntry]:
    """Return the entries, those that differ only in time and request as one."""
    found: dict[tuple[str, ...], list[AuditEntry]] = {}
    for entry in entries:
        found.setdefault((entry.action, entry.path, entry.by, entry.address, entry.outcome), []).append(entry)
    return [msgspec.structs.replace(alike[0], others=[one.request_id for one in alike[1:]]) for alike in found.values()]


async def _stored(bus: Bus, entry: AuditEntry) -> None:
    subject = subjects.fill(subjects.WEB_AUDIT, by=entry.by.partition(":")[2] or entry.by)
    try:
        await bus.stream_publish(
            subject, encode(entry), message_id=secrets.token_hex(16), deadline=Deadline.after(WRITE)
        )
    except MembridgeError as error:
        log.exception("audit entry not kept", reason=error.message, line=encode(entry).decode())


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
