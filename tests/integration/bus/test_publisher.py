"""Events, best effort: in order, bounded, and without harm to what they report when they cannot be published."""

import asyncio

import pytest

from membridge.aio.deadline import Deadline
from membridge.bus import jetstream, publisher
from membridge.bus.connection import Bus, connect
from membridge.bus.options import BusOptions
from membridge.bus.publisher import Publisher, announce, tell
from membridge.bus.streams import ensure_streams
from schemas import streams
from schemas.events import LeadershipChanged, decode_event
from tests.fixtures.nats import QUICK, Restartable

PROJECT = "0" * 16


def event(epoch: int) -> LeadershipChanged:
    return LeadershipChanged(project=PROJECT, node="a", at="2026-01-01T00:00:00Z", epoch=epoch, reason="acquired")


class Lines:
    """The log of the publisher: level and event of each line."""

    def __init__(self) -> None:
        self.written: list[tuple[str, str]] = []

    def info(self, said: str, **fields: object) -> None:
        del fields
        self.written.append(("info", said))

    def debug(self, said: str, **fields: object) -> None:
        del fields
        self.written.append(("debug", said))


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Lines:
    made = Lines()
    monkeypatch.setattr(publisher, "log", made)
    return made


async def kept(bus: Bus) -> list[int]:
    """Return the epochs of the events that the stream has."""
    read = jetstream.read_from(bus, streams.EVENTS.name, ">", start=1, deadline=Deadline.after(10.0))
    found = [decode_event(message.body) async for message in read]
    return [one.epoch for one in found if isinstance(one, LeadershipChanged)]


async def test_what_is_queued_is_published_in_order_and_the_rest_when_it_finishes(bus: Bus) -> None:
    events = Publisher(bus)
    async with bus.subscribe("news.>") as news:
        for number in range(3):
            events.announce(event(number))
            events.tell(f"news.{number}", b"now")
        async with asyncio.timeout(10.0), asyncio.TaskGroup() as group:
            running = group.create_task(events.run(lambda: None))
            assert [(await anext(news)).subject for _ in range(3)] == ["news.0", "news.1", "news.2"]
            running.cancel()
    assert await kept(bus) == [0, 1, 2]

    events.announce(event(3))
    await events.finish(deadline=Deadline.after(10.0))
    await announce(bus, event(4))
    assert await kept(bus) == [0, 1, 2, 3, 4]


async def test_a_full_queue_drops_the_newest_and_never_waits(bus: Bus, lines: Lines) -> None:
    events = Publisher(bus, bound=2)
    for number in range(4):
        events.announce(event(number))
    await events.finish(deadline=Deadline.after(10.0))

    assert await kept(bus) == [0, 1]
    assert lines.written == [("info", "event dropped, too many wait")] * 2


async def test_a_failure_is_logged_and_quietly_while_the_connection_is_down(
    restartable: Restartable, lines: Lines
) -> None:
    async with connect(
        BusOptions(urls=(restartable.url,), name="test", pace=QUICK), deadline=Deadline.after(5.0)
    ) as bus:
        # No stream keeps it yet.
        await announce(bus, event(1))
        await ensure_streams(bus, replicas=1, deadline=Deadline.after(10.0))
        broken = bus._nats.broken
        restartable.kill()
        await broken
        await announce(bus, event(2))
        await tell(bus, "news", b"")

    assert lines.written == [(level, "event not published") for level in ("info", "debug", "debug")]
