"""Server-sent events: each item once and in order, whatever is cut; bounded, alive, and over when they have to be."""

import asyncio
from contextlib import AsyncExitStack

import msgspec
import pytest

from membridge.aio.deadline import Deadline
from membridge.bus.connection import Bus, connect
from membridge.bus.options import BusOptions
from membridge.bus.streams import ensure_streams
from schemas.web import Role
from services.web import broadcast
from services.web.auth import RATES, Rates
from services.web.limits import Rate
from services.web.streaming import StreamLimits
from tests.fixtures.event_stream import followed, publish
from tests.fixtures.nats import QUICK, Restartable
from tests.fixtures.pace import pause
from tests.fixtures.toy_web import ask
from tests.fixtures.web_access import SUBJECT, guarded


async def test_a_client_gets_what_comes_and_one_that_names_an_item_what_came_after_it(bus: Bus) -> None:
    await publish(bus, 0, 1, 2)
    async with guarded(bus) as served:
        key = await served.key(Role.READER)
        async with followed(served.toy, key) as live, followed(served.toy, key, last="1") as resumed:
            assert live.answer.headers["content-type"] == "text/event-stream; charset=utf-8"
            assert await resumed.numbers(2) == [1, 2]
            await publish(bus, 3)
            assert await live.numbers(1) == [3]
            assert await resumed.numbers(1) == [3]
            assert live.last == resumed.last


@pytest.mark.parametrize("kept", [broadcast.KEPT, 2], ids=["from memory", "from the stream"])
async def test_a_connection_that_is_cut_after_each_item_leaves_no_gap_and_no_double(
    bus: Bus, monkeypatch: pytest.MonkeyPatch, kept: int
) -> None:
    monkeypatch.setattr(broadcast, "KEPT", kept)
    count, seen, last = 40, list[int](), ""
    async with guarded(bus) as served, asyncio.TaskGroup() as group:
        key = await served.key(Role.READER)
        async with followed(served.toy, key) as steady:
            group.create_task(publish(bus, *range(count)))
            last = (await steady.frame())["id"]
            while len(seen) < count - 1:
                async with followed(served.toy, key, last=last) as cut:
                    seen += await cut.numbers(min(1 + len(seen) % 4, count - 1 - len(seen)))
                    last = cut.last
            assert await steady.numbers(count - 1) == seen == list(range(1, count))


async def test_a_resumed_stream_goes_on_at_another_server(bus: Bus) -> None:
    async with guarded(bus) as one, guarded(bus) as other:
        key = await one.key(Role.READER)
        await other.keyring.refresh()
        async with followed(one.toy, key) as first:
            await publish(bus, 0, 1)
            assert await first.numbers(2) == [0, 1]
        await publish(bus, 2)
        async with followed(other.toy, key, last=first.last) as second:
            assert await second.numbers(1) == [2]


async def test_what_the_stream_forgot_or_never_had_is_a_reset(bus: Bus) -> None:
    await publish(bus, *range(6))
    async with guarded(bus) as served:
        key = await served.key(Role.READER)
        async with followed(served.toy, key, last="1") as client:
            await client.frame()
            life = client.last.partition("/")[0]
        await bus.request(f"{bus.options.api}.STREAM.PURGE.EVENTS", b'{"seq":5}', deadline=Deadline.after(5.0))
        async with followed(served.toy, key, last=f"{life}/1") as client:
            assert (await client.frame())["event"] == "reset"
            assert await client.numbers(2) == [4, 5]
        for unknown in (f"{life}/999", "another/3", "999"):
            async with followed(served.toy, key, last=unknown) as client:
                assert (await client.frame())["event"] == "reset", unknown
        async with followed(served.toy, key, last="nonsense") as client:
            assert (client.answer.status, client.answer.error.field) == (400, "last_event_id")


async def test_clients_are_told_that_the_server_cannot_read_and_miss_nothing(restartable: Restartable) -> None:
    options = BusOptions(urls=(restartable.url,), name="test", pace=QUICK)
    async with AsyncExitStack() as stack:
        bus = await stack.enter_async_context(connect(options, deadline=Deadline.after(10.0)))
        await ensure_streams(bus, replicas=1, deadline=Deadline.after(10.0))
        served = await stack.enter_async_context(guarded(bus))
        key = await served.key(Role.READER)
        async with followed(served.toy, key) as client:
            await publish(bus, 0)
            assert await client.numbers(1) == [0]
            restartable.stop()
            trouble = await client.frame()
            assert trouble["event"] == "trouble"
            # A read that was on its way when the server stopped gets no answer; the next one is not sent.
            assert msgspec.json.decode(trouble["data"])["error"] in {"unavailable", "deadline_exceeded"}
            generation = bus.generation
            restartable.start()
            await bus.wait_generation(generation)
            await publish(bus, 1, 2)
            assert await client.numbers(2) == [1, 2]


async def test_an_idle_stream_shows_that_it_is_alive(bus: Bus) -> None:
    async with (
        guarded(bus, limits=StreamLimits(heartbeat=0.05)) as served,
        followed(served.toy, await served.key(Role.READER)) as client,
    ):
        assert [await client.comment() for _ in range(3)] == [": alive\n\n"] * 3


async def test_a_client_that_does_not_read_is_cut_off_and_the_others_go_on(bus: Bus) -> None:
    async with guarded(bus, limits=StreamLimits(slow=0.3)) as served:
        key = await served.key(Role.READER)
        async with followed(served.toy, key) as slow, followed(served.toy, key) as quick:
            slow.writer.transport.pause_reading()
            for number in range(80):
                await bus.stream_publish(
                    SUBJECT, b"1" * 200_000, message_id=f"b{number}", deadline=Deadline.after(20.0)
                )
                assert len((await quick.frame())["data"]) == 200_000
            while served.toy.streams is None or len(served.toy.streams) > 1:
                await pause()


async def test_a_revoked_key_ends_its_streams(bus: Bus) -> None:
    async with guarded(bus) as served:
        admin, key = await served.key(), await served.key(Role.READER)
        async with followed(served.toy, key) as client, followed(served.toy, admin) as other:
            await ask(served.toy, "DELETE", f"/api/v1/keys/{key.split('_')[1]}", key=admin)
            assert await client.frame() == {}
            await publish(bus, 7)
            assert await other.numbers(1) == [7]
        async with followed(served.toy, key) as client:
            assert client.answer.status == 401


async def test_a_logout_ends_the_streams_of_its_session(bus: Bus) -> None:
    async with guarded(bus) as served:
        body = msgspec.json.encode({"key": await served.key()})
        answer = await ask(served.toy, "POST", "/api/v1/session", body=body)
        cookie = f"Cookie: {answer.headers['set-cookie'].partition(';')[0]}"
        async with followed(served.toy, headers=(cookie,)) as client:
            assert client.answer.status == 200
            await ask(served.toy, "DELETE", "/api/v1/session", headers=[cookie, "Sec-Fetch-Site: same-origin"])
            assert await client.frame() == {}


async def test_one_caller_has_so_many_streams_and_no_more(bus: Bus) -> None:
    async with guarded(bus, limits=StreamLimits(most=3, most_of_one=2)) as served, AsyncExitStack() as stack:
        one, other = await served.key(Role.READER), await served.key(Role.READER)
        opened = [await stack.enter_async_context(followed(served.toy, key)) for key in (one, one, one, other, other)]
        assert [each.answer.status for each in opened] == [200, 200, 429, 200, 429]


async def test_a_stop_ends_every_stream_at_once(bus: Bus) -> None:
    async with AsyncExitStack() as stack, AsyncExitStack() as clients:
        served = await stack.enter_async_context(guarded(bus))
        key = await served.key(Role.READER)
        opened = [await clients.enter_async_context(followed(served.toy, key)) for _ in range(20)]
        async with asyncio.timeout(10.0):
            await stack.aclose()
            assert [await each.frame() for each in opened] == [{}] * 20


async def test_a_thousand_idle_streams_cost_one_reader_and_all_get_what_comes(bus: Bus) -> None:
    rates = Rates(read=Rate(per_second=1.0, burst=2_000), write=RATES.write, refused=RATES.refused)
    limits = StreamLimits(most_of_one=1_000)
    async with guarded(bus, rates=rates, limits=limits) as served, AsyncExitStack() as stack:
        key = await served.key(Role.READER)
        opened = [await stack.enter_async_context(followed(served.toy, key)) for _ in range(1_000)]
        streams = served.toy.streams
        assert streams is not None
        assert (len(streams), len(streams.broadcast)) == (1_000, 1)
        assert (await ask(served.toy, "GET", "/health")).status == 200
        await publish(bus, 42)
        assert {tuple(await each.numbers(1)) for each in opened} == {(42,)}
        shown = (await ask(served.toy, "GET", "/metrics", key=await served.key())).body
        assert b'membridge_http_streams{kind="events"} 1000.0' in shown
    assert (len(streams), len(streams.broadcast)) == (0, 0)
