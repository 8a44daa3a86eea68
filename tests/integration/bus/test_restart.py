"""A server that goes and comes back, with and without its memory: what the bus and its watchers and queues do then."""

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from membridge.aio.deadline import Deadline
from membridge.bus.connection import Bus, connect
from membridge.bus.kv import open_bucket
from membridge.bus.options import BusOptions
from membridge.bus.rpc import RpcClient
from membridge.bus.service import Call, Endpoint, ServiceIdentity, serve
from membridge.bus.streams import ensure_streams, open_queue
from membridge.bus.watch import watch
from membridge.errors import BusUnavailableError
from schemas import buckets, streams, subjects
from schemas.buckets import PushLeaseRecord
from schemas.snapshot import PushOutcome, PushReply, PushRequest
from tests.fixtures.nats import QUICK, Restartable

PROJECT = "0" * 16
PROPOSAL = subjects.fill(subjects.PROPOSAL, project=PROJECT, node="a")


def soon() -> Deadline:
    return Deadline.after(10.0)


@pytest.fixture
async def lasting(restartable: Restartable) -> AsyncGenerator[Bus]:
    """A connection that lives through the restarts of `restartable`."""
    options = BusOptions(urls=(restartable.url,), name="test", pace=QUICK)
    async with connect(options, deadline=soon()) as bus:
        await ensure_streams(bus, replicas=1, deadline=soon())
        yield bus


async def back(restartable: Restartable, bus: Bus) -> None:
    """Start the server again and wait for the new connection."""
    generation = bus.generation
    restartable.start()
    async with asyncio.timeout(10.0):
        await bus.wait_generation(generation)


async def down(restartable: Restartable, bus: Bus) -> None:
    """Stop the server and wait until that was noticed."""
    restartable.stop()
    async with asyncio.timeout(10.0):
        while bus.connected:  # noqa: ASYNC110 - a loss has no event: who must know of it gets an error
            await asyncio.sleep(0)


async def test_while_the_server_is_away_everything_fails_at_once_and_nothing_comes_later(
    restartable: Restartable, lasting: Bus
) -> None:
    async with lasting.subscribe("news") as news:
        await down(restartable, lasting)
        with pytest.raises(BusUnavailableError):
            await lasting.publish("news", b"while it was away")
        with pytest.raises(BusUnavailableError):
            await lasting.stream_publish(PROPOSAL, b"while it was away", message_id="away", deadline=soon())
        await back(restartable, lasting)
        await lasting.settle()
        await lasting.publish("news", b"afterwards")
        async with asyncio.timeout(5.0):
            assert (await anext(news)).body == b"afterwards"
    queue = await open_queue(lasting, streams.PROPOSALS, "q", PROPOSAL, deadline=soon())
    assert await queue.fetch(wait=0.1) == []


async def test_a_watcher_is_current_within_two_seconds_of_a_restart(restartable: Restartable, lasting: Bus) -> None:
    locks = await open_bucket(lasting, buckets.PUSH_LEASES, replicas=1, deadline=soon())
    await locks.create("k", PushLeaseRecord(owner="a", since="now"), deadline=soon())
    changes = watch(locks, "k")
    assert (await anext(changes)).initial
    await down(restartable, lasting)
    await back(restartable, lasting)
    await locks.put("k", PushLeaseRecord(owner="b", since="now"), deadline=soon())
    async with asyncio.timeout(2.0):
        change = await anext(changes)
    await changes.aclose()
    assert change.entry is not None
    assert change.entry.value.owner == "b"


async def test_a_watcher_tells_that_a_wiped_store_holds_nothing_and_then_what_is_new(
    restartable: Restartable, lasting: Bus
) -> None:
    locks = await open_bucket(lasting, buckets.PUSH_LEASES, replicas=1, deadline=soon())
    first = await locks.create("k", PushLeaseRecord(owner="a", since="now"), deadline=soon())
    changes = watch(locks, "k")
    await anext(changes)
    await down(restartable, lasting)
    restartable.wipe()
    await back(restartable, lasting)
    await open_bucket(lasting, buckets.PUSH_LEASES, replicas=1, deadline=soon())
    again = await locks.create("k", PushLeaseRecord(owner="b", since="now"), deadline=soon())
    assert again == first
    seen: list[str | None] = []
    async with asyncio.timeout(10.0):
        while not seen or seen[-1] != "b":
            change = await anext(changes)
            seen.append(change.entry.value.owner if change.entry else None)
    await changes.aclose()


async def test_acknowledged_work_survives_a_restart_and_comes_to_a_waiting_reader(
    restartable: Restartable, lasting: Bus
) -> None:
    queue = await open_queue(lasting, streams.PROPOSALS, "q", PROPOSAL, deadline=soon())
    await lasting.stream_publish(PROPOSAL, b"kept", message_id="kept", deadline=soon())
    await down(restartable, lasting)
    assert await queue.fetch(wait=0.1) == []
    await back(restartable, lasting)
    async with asyncio.timeout(5.0):
        while not (found := await queue.fetch(wait=1.0)):
            pass
    assert [delivery.message.body for delivery in found] == [b"kept"]


async def test_a_queue_whose_stream_was_wiped_is_made_again(restartable: Restartable, lasting: Bus) -> None:
    queue = await open_queue(lasting, streams.PROPOSALS, "q", PROPOSAL, deadline=soon())
    await down(restartable, lasting)
    restartable.wipe()
    await back(restartable, lasting)
    async with asyncio.timeout(10.0):
        await queue.fetch(wait=0.1)
        await lasting.stream_publish(PROPOSAL, b"new", message_id="new", deadline=soon())
        while not (found := await queue.fetch(wait=1.0)):
            pass
    assert found[0].message.body == b"new"


async def test_a_queue_whose_consumer_is_damaged_on_the_disk_is_read_all_the_same(
    restartable: Restartable, lasting: Bus, tmp_path: Path
) -> None:
    """The server makes no second consumer of that name on its disk, also in a stream that it made anew over the old."""
    queue = await open_queue(lasting, streams.PROPOSALS, "q", PROPOSAL, deadline=soon())
    for number in range(2):
        await lasting.stream_publish(PROPOSAL, str(number).encode(), message_id=str(number), deadline=soon())
    (first, *_) = await queue.fetch(wait=2.0)
    await first.ack()
    await down(restartable, lasting)
    (state,) = (tmp_path / "restartable").rglob("o.dat")
    state.write_bytes(bytes(byte ^ 0xFF for byte in state.read_bytes()))
    (sums,) = (tmp_path / "restartable").rglob("PROPOSALS/meta.sum")
    sums.write_bytes(b"no sum")
    await back(restartable, lasting)
    async with asyncio.timeout(20.0):
        while not (found := await queue.fetch(wait=1.0)):
            pass
    assert [delivery.message.body for delivery in found] == [b"1"]
    await found[0].ack()
    again = await open_queue(lasting, streams.PROPOSALS, "q", PROPOSAL, deadline=soon())
    assert await again.fetch(wait=0.1) == []


async def test_a_queue_whose_consumer_passes_over_what_it_holds_is_read_from_its_start(
    restartable: Restartable, lasting: Bus, tmp_path: Path
) -> None:
    """One flipped bit in the consumer's file puts its place far behind the last message."""
    queue = await open_queue(lasting, streams.PROPOSALS, "q", PROPOSAL, deadline=soon())
    await down(restartable, lasting)
    (state,) = (tmp_path / "restartable").rglob("o.dat")
    # Its version, then as variable-length numbers: acknowledged, delivered, waited for (filestore.go of nats-server).
    assert state.read_bytes()[:6] == b"\x16\x02\x00\x00\x00\x00"
    state.write_bytes(b"\x16\x02\x00\x00\x00\x40" + state.read_bytes()[6:])
    await back(restartable, lasting)
    for number in range(2):
        await lasting.stream_publish(PROPOSAL, str(number).encode(), message_id=str(number), deadline=soon())
    async with asyncio.timeout(20.0):
        while not (found := await queue.fetch(wait=0.5)):
            pass
    assert [delivery.message.body for delivery in found] == [b"0", b"1"]
    # What is delivered and not acknowledged yet is not passed over.
    assert await queue.fetch(wait=0.1) == []
    assert await queue.fetch(wait=0.1) == []
    for delivery in found:
        assert delivery.attempts == 1
        await delivery.ack()


async def test_requests_are_served_again_after_a_restart(restartable: Restartable, lasting: Bus) -> None:
    async def push(request: PushRequest, call: Call) -> PushReply:
        return PushReply(outcome=PushOutcome.UNCHANGED, job_id="job")

    subject = subjects.PUSH.at(project=PROJECT, node="a")
    endpoint = Endpoint(operation=subjects.PUSH, subject=subject, handler=push)
    async with serve(lasting, ServiceIdentity("membridge-node", "0.1.0", "test"), [endpoint]):
        await down(restartable, lasting)
        await back(restartable, lasting)
        reply = await RpcClient(lasting).request(subjects.PUSH, PushRequest(), project=PROJECT, node="a")
    assert reply.outcome is PushOutcome.UNCHANGED
