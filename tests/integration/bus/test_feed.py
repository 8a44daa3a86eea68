"""History, then live: each message once and in order, whatever becomes of the connection and the stream meanwhile."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, asynccontextmanager

import pytest

from membridge.aio.deadline import Deadline
from membridge.bus import feed
from membridge.bus.connection import Bus, connect
from membridge.bus.feed import News, Page, Position, Read, follow
from membridge.bus.options import BusOptions
from membridge.bus.streams import ensure_streams
from membridge.errors import NotFoundError
from schemas import streams, subjects
from tests.fixtures.nats import QUICK, Restartable

SUBJECT = subjects.fill(subjects.EVENT, project="0" * 16, kind="k", node="a")
COUNT = 12


def soon() -> Deadline:
    return Deadline.after(20.0)


@asynccontextmanager
async def connected(url: str) -> AsyncGenerator[Bus]:
    async with connect(BusOptions(urls=(url,), name="test", pace=QUICK), deadline=soon()) as bus:
        yield bus


def reading(bus: Bus, *, most: int = 64) -> Read[bytes]:
    """Read the stream itself, `most` bytes at a time."""

    async def read(start: int) -> Page[bytes]:
        return await feed.page_of(
            bus, streams.EVENTS, SUBJECT, start=start, most_bytes=most, deadline=Deadline.after(1.0)
        )

    return read


async def publish(bus: Bus, *numbers: int) -> None:
    for number in numbers:
        await bus.stream_publish(SUBJECT, b"%d" % number, message_id=f"m{number}", deadline=soon())


async def told(
    bus: Bus, until: int, *, start: Position | None = None, each: Callable[[News[bytes]], None] = lambda _: None
) -> list[int]:
    """Follow until the item `until` came; return all that did."""
    found: list[int] = []
    async with asyncio.timeout(20.0), aclosing(follow(bus, SUBJECT, reading(bus), start=start, look=1.0)) as news:
        async for one in news:
            found += [int(body) for _, body in one.items]
            each(one)
            if found and found[-1] >= until:
                return found
    raise AssertionError


async def test_what_is_published_while_the_history_is_read_comes_once(bus: Bus, nats_url: str) -> None:
    await publish(bus, *range(10))
    async with connected(nats_url) as other, asyncio.TaskGroup() as group:
        group.create_task(publish(other, *range(10, 200)))
        assert await told(bus, 199) == list(range(200))


@pytest.mark.parametrize("ahead", [0, 2])
async def test_a_connection_that_is_lost_at_any_step_loses_and_repeats_nothing(
    restartable: Restartable, ahead: int
) -> None:
    """The server is killed again and again, `ahead` items after the follower was seen to have caught up."""
    async with connected(restartable.url) as bus, connected(restartable.url) as far:
        await ensure_streams(bus, replicas=1, deadline=soon())
        caught_up = asyncio.Event()
        published = -1

        async def disturb() -> None:
            nonlocal published
            for number in range(COUNT):
                caught_up.clear()
                await publish(bus, number)
                published = number
                if number % 4 == ahead:
                    generation = bus.generation
                    restartable.kill()
                    restartable.start()
                    # What comes next may be stored before the follower is back.
                    await bus.wait_generation(generation)
                elif number % 4 == 3:
                    await caught_up.wait()

        def each(one: News[bytes]) -> None:
            if one.items and int(one.items[-1][1]) >= published:
                caught_up.set()

        async with asyncio.TaskGroup() as group:
            group.create_task(disturb())
            assert await told(far, COUNT - 1, each=each) == list(range(COUNT))


async def test_a_reader_resumes_where_it_was(bus: Bus) -> None:
    await publish(bus, *range(5))
    places: list[Position] = []
    await told(bus, 4, each=lambda one: places.append(one.next))
    await publish(bus, *range(5, 8))
    assert await told(bus, 7, start=places[-1]) == [5, 6, 7]


async def test_a_stream_that_was_wiped_is_read_from_its_beginning_and_that_is_said(restartable: Restartable) -> None:
    async with connected(restartable.url) as bus:
        await ensure_streams(bus, replicas=1, deadline=soon())
        await publish(bus, *range(5))
        resets: list[bool] = []
        wiped = asyncio.Event()

        async def wipe() -> None:
            await wiped.wait()
            restartable.kill()
            restartable.wipe()
            generation = bus.generation
            restartable.start()
            await bus.wait_generation(generation)
            await ensure_streams(bus, replicas=1, deadline=soon())
            await publish(bus, 5, 6)

        def each(one: News[bytes]) -> None:
            resets.append(one.reset)
            if one.items:
                wiped.set()

        async with asyncio.TaskGroup() as group:
            group.create_task(wipe())
            assert await told(bus, 6, each=each) == list(range(7))
        assert resets.count(True) == 1


async def test_what_the_stream_forgot_is_said_once(bus: Bus) -> None:
    await publish(bus, *range(6))
    places: list[Position] = []
    await told(bus, 5, each=lambda one: places.append(one.next))
    await bus.request(f"{bus.options.api}.STREAM.PURGE.EVENTS", b'{"seq":5}', deadline=soon())
    resets: list[bool] = []
    start = Position(2, places[-1].life)
    assert await told(bus, 5, start=start, each=lambda one: resets.append(one.reset)) == [4, 5]
    assert resets.count(True) == 1


async def test_what_no_repetition_mends_ends_the_feed(bus: Bus) -> None:
    async def missing(_: int) -> Page[bytes]:
        raise NotFoundError("there is no such task")

    async with aclosing(follow(bus, SUBJECT, missing)) as news:
        with pytest.raises(NotFoundError, match="no such task"):
            await anext(news)
