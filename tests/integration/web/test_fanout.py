"""Followers of events share what they are sent: no task for one, none waits for another, none lacks an item."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from membridge.aio.deadline import Deadline
from membridge.bus.connection import Bus, connect
from membridge.bus.feed import Page, Position
from membridge.bus.options import BusOptions
from membridge.bus.streams import ensure_streams
from membridge.errors import CredentialsError
from schemas import streams
from schemas.web import Role
from services.web import broadcast, fanout
from services.web.broadcast import broadcasting, of_stream
from services.web.identity import Identity
from services.web.streaming import StreamLimits
from tests.fixtures.event_stream import Events, followed, publish
from tests.fixtures.nats import QUICK, Restartable
from tests.fixtures.pace import pause
from tests.fixtures.toy_web import ask
from tests.fixtures.web_access import SUBJECT, Guarded, guarded

#: Bytes of an item of which a few fill every buffer on the way to a client, and how many make a client slow.
LARGE, MANY = 200_000, 60


async def large(bus: Bus, number: int) -> None:
    """Store an item that begins with its number."""
    body = b"%06d" % number + b"1" * LARGE
    await bus.stream_publish(SUBJECT, body, message_id=f"b{number}", deadline=Deadline.after(20.0))


async def numbers(client: Events, count: int) -> list[int]:
    """Return the numbers of the next items."""
    return [int((await client.frame())["data"][:6]) for _ in range(count)]


async def gone(served: Guarded, left: int = 0) -> None:
    """Wait until so many streams are left."""
    async with asyncio.timeout(20.0):
        while served.toy.streams is None or len(served.toy.streams) > left:
            await pause()


async def test_a_follower_has_no_task(bus: Bus) -> None:
    async with guarded(bus, limits=StreamLimits(most_of_one=100)) as served, AsyncExitStack() as stack:
        key = await served.key(Role.READER)
        opened = [await stack.enter_async_context(followed(served.toy, key))]
        before = len(asyncio.all_tasks())
        opened += [await stack.enter_async_context(followed(served.toy, key)) for _ in range(50)]
        # Each of their connections ends with its head.
        async with asyncio.timeout(20.0):
            while len(asyncio.all_tasks()) > before:
                await pause()
        await publish(bus, 1)
        assert [await each.numbers(1) for each in opened] == [[1]] * 51
        await publish(bus, 2)
        # One that comes back has one until it is where the others are.
        again = [await stack.enter_async_context(followed(served.toy, key, last=opened[0].last)) for _ in range(20)]
        assert [await each.numbers(1) for each in again] == [[2]] * 20
        async with asyncio.timeout(20.0):
            while len(asyncio.all_tasks()) > before:
                await pause()
        await publish(bus, 3)
        assert [await each.numbers(1) for each in again] == [[3]] * 20


async def test_a_slow_follower_holds_up_nobody_and_gets_everything(bus: Bus) -> None:
    async with guarded(bus, limits=StreamLimits(slow=60.0)) as served:
        key = await served.key(Role.READER)
        async with followed(served.toy, key) as slow, followed(served.toy, key) as quick:
            slow.writer.transport.pause_reading()
            for number in range(MANY):
                await large(bus, number)
                assert await numbers(quick, 1) == [number]
            slow.writer.transport.resume_reading()
            assert await numbers(slow, MANY) == list(range(MANY))
            await large(bus, MANY)
            assert await numbers(slow, 1) == await numbers(quick, 1) == [MANY]


async def test_a_slow_follower_whose_key_is_revoked_is_cut(bus: Bus) -> None:
    async with guarded(bus, limits=StreamLimits(slow=60.0)) as served:
        admin, key = await served.key(), await served.key(Role.READER)
        async with followed(served.toy, key) as slow, followed(served.toy, admin) as quick:
            slow.writer.transport.pause_reading()
            for number in range(MANY):
                await large(bus, number)
            await ask(served.toy, "DELETE", f"/api/v1/keys/{key.split('_')[1]}", key=admin)
            await gone(served, left=1)
            assert await numbers(quick, MANY) == list(range(MANY))


async def test_a_key_that_expired_gets_nothing_more(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fanout, "CHECK", 0.0)
    async with guarded(bus) as served:
        key, other = await served.key(Role.READER), await served.key(Role.READER)
        async with followed(served.toy, key) as client, followed(served.toy, other) as lasting:
            ended = key.split("_")[1]

            def recheck(identity: Identity) -> None:
                # As after its last day: there is no news of that.
                if identity.key_id == ended:
                    raise CredentialsError("expired")

            monkeypatch.setattr(served.toy.streams, "_recheck", recheck)
            await publish(bus, 1)
            assert await client.frame() == {}
            assert await lasting.numbers(1) == [1]


async def test_over_http_1_1_the_body_is_chunks_with_a_proper_end(bus: Bus) -> None:
    async with guarded(bus) as served:
        admin, key = await served.key(), await served.key(Role.READER)
        reader, writer = await asyncio.open_connection(served.toy.host, served.toy.port)
        writer.write(f"GET /events HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\n\r\n".encode())
        async with asyncio.timeout(20.0):
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            assert b"transfer-encoding: chunked" in head
            assert b"connection: close" in head
            body = await _chunk(reader)
            await publish(bus, 1)
            while b"data: 1\n\n" not in body:
                body += await _chunk(reader)
            assert body.startswith(b"retry: 2000\n\n: alive\n\n")
            # What a client sends on such a connection is ignored, whatever it is.
            writer.write(b"GET /notes HTTP/1.1\r\n\r\n" + b"x" * 100_000)
            await publish(bus, 2)
            assert b"data: 2\n\n" in await _chunk(reader)
            await ask(served.toy, "DELETE", f"/api/v1/keys/{key.split('_')[1]}", key=admin)
            assert await _chunk(reader) == b""
            assert await reader.read() == b""
        writer.close()


async def _chunk(reader: asyncio.StreamReader) -> bytes:
    size = int(await reader.readline(), 16)
    return (await reader.readexactly(size + 2))[:-2]


async def test_followers_are_cut_when_the_stream_cannot_be_read_for_good_and_can_come_back(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object, **__: object) -> Page[bytes]:
        raise RuntimeError("the inside")

    async with guarded(bus) as served:
        key = await served.key(Role.READER)
        async with followed(served.toy, key) as live, followed(served.toy, key) as other:
            with monkeypatch.context() as patch:
                patch.setattr(broadcast, "page_of", broken)
                await publish(bus, 1)
                assert [await live.frame(), await other.frame()] == [{}, {}]
        await gone(served)
        async with followed(served.toy, key, last="0") as again:
            assert await again.numbers(1) == [1]


async def test_streams_of_one_name_on_two_buses_are_two(bus: Bus, restartable: Restartable) -> None:
    options = BusOptions(urls=(restartable.url,), name="other account", pace=QUICK)
    async with connect(options, deadline=Deadline.after(10.0)) as other, broadcasting() as channels:
        await ensure_streams(other, replicas=1, deadline=Deadline.after(10.0))
        one, two = (of_stream(each, streams.EVENTS, SUBJECT) for each in (bus, other))
        async with channels.joined(one) as mine, channels.joined(two) as theirs:
            assert len(channels) == 2
            await publish(other, 7)
            # It is heard on its own bus: at once, not at the next look.
            assert await theirs.moves(5.0)
            assert [body for _, body in theirs.since(Position(1, theirs.end.life))] == [b"7"]
            assert mine.end.seq == 1
