"""`GET /api/events`: several streams in one, resumed in each without a gap or a double."""

import json
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from membridge.aio.deadline import Deadline
from membridge.bus.connection import Bus
from membridge.bus.kv import Kv
from membridge.wiring.bus import ensure
from schemas import buckets, streams, subjects
from schemas.web import Role
from services.web import keys as web_keys
from services.web.identity import ANYBODY
from services.web.keys import Keyring
from tests.fixtures.event_stream import Events, followed
from tests.fixtures.gateway import Gateway, gateway_of

PROJECT, OTHER = "0" * 16, "1" * 16
RUNTIME = "r" * 24


@pytest.fixture
async def gateway(bus: Bus, nats_url: str, tmp_path: Path) -> AsyncGenerator[Gateway]:
    await ensure(bus, streams.RUNTIME, (), replicas=1, deadline=Deadline.after(10.0))
    async with gateway_of(bus, nats_url, tmp_path, RUNTIME_API_KEY=RUNTIME) as made:
        yield made


async def memory(bus: Bus, number: int, project: str = PROJECT) -> None:
    """Store an event of a project."""
    subject = subjects.EVENT.format(project=project, kind="k", node="a")
    await bus.stream_publish(subject, b"%d" % number, message_id=f"m{number}", deadline=Deadline.after(20.0))


async def task(bus: Bus, number: int) -> None:
    """Store an event of a task."""
    subject = subjects.TASK_EVENT.format(task="t", kind="status", by="coordinator")
    await bus.publish(subject, b"%d" % number)


async def items(stream: Events, count: int) -> list[tuple[str, int]]:
    """Return the next items by name."""
    found = [await stream.frame() for _ in range(count)]
    return [(one["event"], int(one["data"])) for one in found]


async def begun(stream: Events) -> None:
    """Wait until the place in each stream is known: nothing that comes later is missed."""
    while not {"task", "memory", "job", "node"} <= {part.partition("=")[0] for part in stream.last.split(",")}:
        await stream.comment_or_id()


async def test_what_happens_meanwhile_is_sent_once_from_each_stream(gateway: Gateway) -> None:
    bus, as_runtime = gateway.bus, (f"X-Runtime-API-Key: {RUNTIME}",)
    async with followed(gateway.where, headers=as_runtime, path="/api/events") as stream:
        await begun(stream)
        await memory(bus, 1)
        assert await items(stream, 1) == [("memory", 1)]
        await task(bus, 2)
        assert await items(stream, 1) == [("task", 2)]
        last = stream.last
    # While it is away both streams go on.
    await memory(bus, 3)
    await task(bus, 4)
    await memory(bus, 5)
    async with followed(gateway.where, headers=as_runtime, path="/api/events", last=last) as stream:
        found = await items(stream, 3)
        assert sorted(found) == [("memory", 3), ("memory", 5), ("task", 4)]
        assert [number for name, number in found if name == "memory"] == [3, 5]
        again = stream.last
    async with followed(gateway.where, headers=as_runtime, path="/api/events", last=again) as stream:
        await begun(stream)
        await task(bus, 6)
        assert await items(stream, 1) == [("task", 6)]


async def test_a_caller_gets_what_its_key_may_read_and_no_more_once_it_is_revoked(gateway: Gateway) -> None:
    bus = gateway.bus
    key = await gateway.key(Role.READER, "memory")
    async with followed(gateway.where, key, path=f"/api/events?project={PROJECT}") as refused:
        assert refused.answer.status == 404
    async with followed(gateway.where, key, path="/api/events") as stream:
        while "memory=" not in stream.last:
            await stream.comment_or_id()
        await task(bus, 1)
        await memory(bus, 2)
        assert await items(stream, 1) == [("memory", 2)]
        assert "task" not in stream.last
        ring = Keyring(Kv(bus, buckets.API_KEYS))
        await ring.revoke(key.split("_")[1], by=ANYBODY, deadline=Deadline.after(5.0))
        assert await stream.frame() == {}
    assert (await gateway.ask("GET", "/api/events")).status == 401
    assert key.partition("_")[0] == web_keys.PREFIX


async def test_what_is_gone_from_a_stream_is_a_reset_of_that_stream(gateway: Gateway) -> None:
    bus, as_runtime = gateway.bus, (f"X-Runtime-API-Key: {RUNTIME}",)
    for number in range(1, 4):
        await memory(bus, number)
    async with followed(gateway.where, headers=as_runtime, path="/api/events") as stream:
        await begun(stream)
        place = dict(part.split("=") for part in stream.last.split(","))
    life = place["memory"].partition("/")[0]
    purge = json.dumps({"seq": 3}).encode()
    await bus.request("$JS.API.STREAM.PURGE.EVENTS", purge, deadline=Deadline.after(5.0))
    old = f"{stream.last.replace('memory=' + place['memory'], f'memory={life}/1')}"
    async with followed(gateway.where, headers=as_runtime, path="/api/events", last=old) as stream:
        reset = await stream.frame()
        assert (reset["event"], json.loads(reset["data"])) == ("reset", {"source": "memory"})
        assert await items(stream, 1) == [("memory", 3)]
    # A client that knew other streams and not this one missed what was in it.
    without = ",".join(part for part in stream.last.split(",") if not part.startswith("memory="))
    async with followed(gateway.where, headers=as_runtime, path="/api/events", last=without) as stream:
        reset = await stream.frame()
        assert (reset["event"], json.loads(reset["data"])) == ("reset", {"source": "memory"})
    for wrong in ("x", "memory=", "memory=a/b", ",", "memory=1," + "x" * 9_000):
        async with followed(gateway.where, headers=as_runtime, path="/api/events", last=wrong) as stream:
            assert stream.answer.status == 400, wrong


async def test_a_stream_that_is_made_later_is_followed_from_its_beginning(
    bus: Bus, nats_url: str, tmp_path: Path
) -> None:
    async with gateway_of(bus, nats_url, tmp_path) as gateway, followed(gateway.where, path="/api/events") as stream:
        while "memory=" not in stream.last:
            await stream.comment_or_id()
        await ensure(bus, streams.RUNTIME, (), replicas=1, deadline=Deadline.after(10.0))
        await task(bus, 1)
        assert await items(stream, 1) == [("task", 1)]
