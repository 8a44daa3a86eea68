"""The audit of requests over HTTP: every one is in it, and like ones that come at once are one entry."""

import asyncio
from collections import Counter

import msgspec

from membridge.aio.deadline import Deadline
from membridge.aio.tasks import background
from membridge.bus.connection import Bus
from membridge.bus.streams import last_per_subject
from membridge.system import clock
from membridge.wiring.bus import ensure
from schemas import streams
from schemas.web import AuditEntry
from services.web.audit import joined, stream_audit

COUNT = 200


def entry(number: int, **more: str) -> AuditEntry:
    """Return an entry of one of two callers."""
    said = {"action": "submit", "path": "/tasks", "by": f"key:{number % 2}", "address": "127.0.0.1", "outcome": "ok"}
    return AuditEntry(at=clock.stamp(), request_id=f"r{number}", **{**said, **more})


async def kept(bus: Bus) -> list[AuditEntry]:
    """Return what the stream has."""
    subject = streams.WEB_AUDIT.subjects[0]
    found = await last_per_subject(bus, streams.WEB_AUDIT, subject, limit=9, deadline=Deadline.after(10.0))
    return [msgspec.json.decode(one.body, type=AuditEntry) for one in found]


async def opened(bus: Bus) -> None:
    await ensure(bus, streams.WEB, (), replicas=1, deadline=Deadline.after(10.0))


async def test_of_many_at_once_each_is_kept_by_its_request_id(bus: Bus) -> None:
    await opened(bus)
    entries: list[AuditEntry] = []
    async with bus.subscribe(streams.WEB_AUDIT.subjects[0], bound=10_000) as news:
        async with background() as group:
            add = stream_audit(bus, group)
            async with asyncio.TaskGroup() as adding:
                for number in range(COUNT):
                    adding.create_task(add(entry(number)))
        while (message := news.next_nowait()) is not None:
            entries.append(msgspec.json.decode(message.body, type=AuditEntry))
    by_caller = {name: [one for one in entries if one.by == name] for name in ("key:0", "key:1")}
    assert max(len(one.others) for one in entries) > 0
    assert len(entries) < COUNT / 4
    for number, (_, mine) in enumerate(by_caller.items()):
        ids = Counter(name for one in mine for name in (one.request_id, *one.others))
        assert ids == Counter(f"r{each}" for each in range(number, COUNT, 2))


def test_what_differs_in_more_than_time_and_request_is_an_entry_of_its_own() -> None:
    alike = [entry(0), entry(2), entry(4)]
    others = [
        *(entry(6, **{name: "another"}) for name in ("path", "action", "outcome", "address")),
        entry(1),
    ]
    found = joined([alike[0], *others, *alike[1:]])
    assert found == [msgspec.structs.replace(alike[0], others=["r2", "r4"]), *others]


async def test_a_request_that_is_cut_off_is_kept_all_the_same(bus: Bus) -> None:
    await opened(bus)
    async with background() as group:
        add = stream_audit(bus, group)
        async with asyncio.TaskGroup() as adding:
            cut = adding.create_task(add(entry(1)))
            await asyncio.sleep(0)
            cut.cancel()
        # What comes after it is stored when it is.
        await add(entry(2))
        await add(entry(4))
    assert sorted(one.request_id for one in await kept(bus)) == ["r1", "r4"]
