"""KV on a real server: the client's pitfalls with TTLs and expiry markers do not reach us."""

import asyncio
import json
from contextlib import aclosing
from dataclasses import replace

import pytest

from membridge.aio.deadline import Deadline
from membridge.aio.tasks import background
from membridge.bus.connection import Bus
from membridge.bus.expiry import expiries
from membridge.bus.kv import Entry, Kv, open_bucket
from membridge.bus.watch import LOOK, Change, watch
from membridge.embedded.nats_server import NatsServer
from membridge.errors import CorruptObjectError, InvalidRequestError, RevisionMovedError
from schemas import buckets
from schemas.buckets import PushLeaseRecord
from schemas.identity import InvalidTokenError


def soon() -> Deadline:
    return Deadline.after(10.0)


def record(owner: str) -> PushLeaseRecord:
    return PushLeaseRecord(owner=owner, since="now")


async def gone(kv: Kv[PushLeaseRecord], key: str) -> None:
    """Wait until the key has expired."""
    async with asyncio.timeout(5.0):
        async for change in watch(kv, key):
            if change.entry is None:
                return


async def test_a_value_comes_back_with_its_revision(locks: Kv[PushLeaseRecord]) -> None:
    revision = await locks.create("k", record("a"), deadline=soon())
    entry = await locks.get("k", deadline=soon())
    assert entry is not None
    assert (entry.value.owner, entry.revision) == ("a", revision)
    assert await locks.get("other", deadline=soon()) is None


async def test_create_fails_on_a_key_that_is_there_and_update_on_one_that_moved(locks: Kv[PushLeaseRecord]) -> None:
    first = await locks.create("k", record("a"), deadline=soon())
    with pytest.raises(RevisionMovedError):
        await locks.create("k", record("b"), deadline=soon())
    second = await locks.update("k", record("b"), revision=first, deadline=soon())
    with pytest.raises(RevisionMovedError):
        await locks.update("k", record("c"), revision=first, deadline=soon())
    with pytest.raises(RevisionMovedError):
        await locks.delete("k", revision=first, deadline=soon())
    await locks.delete("k", revision=second, deadline=soon())
    assert await locks.get("k", deadline=soon()) is None
    await locks.create("k", record("d"), deadline=soon())


async def test_an_update_keeps_its_ttl_and_an_expired_key_reads_as_none(locks: Kv[PushLeaseRecord]) -> None:
    revision = await locks.create("k", record("a"), ttl=1.0, deadline=soon())
    await locks.update("k", record("a"), revision=revision, ttl=1.0, deadline=soon())
    await gone(locks, "k")
    assert await locks.get("k", deadline=soon()) is None


async def test_a_key_that_expired_can_be_taken_at_once(locks: Kv[PushLeaseRecord]) -> None:
    await locks.create("k", record("a"), ttl=1.0, deadline=soon())
    await gone(locks, "k")
    await locks.create("k", record("b"), deadline=soon())
    entry = await locks.get("k", deadline=soon())
    assert entry is not None
    assert entry.value.owner == "b"


async def test_of_many_writers_of_one_revision_one_wins(locks: Kv[PushLeaseRecord]) -> None:
    revision = await locks.create("k", record("a"), deadline=soon())
    won: list[str] = []

    async def contend(name: str) -> None:
        try:
            await locks.update("k", record(name), revision=revision, deadline=soon())
        except RevisionMovedError:
            return
        won.append(name)

    async with asyncio.TaskGroup() as group:
        for number in range(16):
            group.create_task(contend(f"w{number}"))
    entry = await locks.get("k", deadline=soon())
    assert entry is not None
    assert won == [entry.value.owner]


async def test_entries_lists_what_is_there_and_skips_what_cannot_be_read(bus: Bus, locks: Kv[PushLeaseRecord]) -> None:
    await locks.create("a", record("a"), deadline=soon())
    await locks.create("b", record("b"), deadline=soon())
    await locks.delete("b", deadline=soon())
    await bus.store(locks.subject("broken"), b"{", headers={}, deadline=soon())
    assert set(await locks.entries(deadline=soon())) == {"a"}
    with pytest.raises(CorruptObjectError):
        await locks.get("broken", deadline=soon())


@pytest.mark.parametrize("key", ["a*", ">", "a b", ""])
async def test_a_key_that_would_widen_the_subject_is_refused(locks: Kv[PushLeaseRecord], key: str) -> None:
    with pytest.raises((InvalidTokenError, InvalidRequestError)):
        await locks.get(key, deadline=soon())


async def test_opening_a_bucket_again_changes_nothing(bus: Bus, locks: Kv[PushLeaseRecord]) -> None:
    await locks.create("k", record("a"), deadline=soon())
    again = await open_bucket(bus, buckets.PUSH_LEASES, replicas=1, deadline=soon())
    assert await again.get("k", deadline=soon()) is not None


async def test_a_watcher_sees_the_present_then_each_change(locks: Kv[PushLeaseRecord]) -> None:
    await locks.create("k", record("a"), deadline=soon())
    seen: list[Change[PushLeaseRecord]] = []
    async with asyncio.timeout(10.0):
        async for change in watch(locks, "k"):
            seen.append(change)
            if len(seen) == 1:
                await locks.put("k", record("b"), deadline=soon())
            elif len(seen) == 2:
                await locks.delete("k", deadline=soon())
            else:
                break
    assert [change.entry.value.owner if change.entry else None for change in seen] == ["a", "b", None]
    assert [change.initial for change in seen] == [True, False, False]


async def test_news_that_is_faster_than_the_store_is_not_forgotten(
    locks: Kv[PushLeaseRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store answers with the entry once more after its deletion was told: the watcher must look again at once."""
    revision = await locks.create("k", record("a"), deadline=soon())
    before = await locks.get("k", deadline=soon())
    assert before is not None
    second = await locks.update("k", record("b"), revision=revision, deadline=soon())
    late = await locks.get("k", deadline=soon())
    answers, read = [before, late], locks.get

    async def behind(key: str, *, deadline: Deadline) -> Entry[PushLeaseRecord] | None:
        return answers.pop(0) if answers else await read(key, deadline=deadline)

    monkeypatch.setattr(locks, "get", behind)
    changes = watch(locks, "k")
    assert (await anext(changes)).entry == before
    await locks.delete("k", revision=second, deadline=soon())
    assert (await anext(changes)).entry == late
    async with asyncio.timeout(LOOK / 2):
        last = await anext(changes)
    assert (last.entry, last.released) == (None, True)
    await changes.aclose()


async def test_a_watcher_is_current_again_right_after_a_server_restart(
    bus: Bus, locks: Kv[PushLeaseRecord], nats_server: NatsServer
) -> None:
    await locks.create("k", record("a"), deadline=soon())
    changes = watch(locks, "k")
    assert (await anext(changes)).initial
    # The connection breaks as it does when the server goes; what was written meanwhile must be seen at once.
    generation = bus.generation
    await bus._nats.client.force_reconnect()
    await bus.wait_generation(generation)
    await locks.put("k", record("b"), deadline=soon())
    async with asyncio.timeout(3.0):
        change = await anext(changes)
    await changes.aclose()
    assert change.entry is not None
    assert change.entry.value.owner == "b"


@pytest.mark.parametrize(("ttl", "header"), [(1.0, "1s"), (2.5, "3s"), (0.2, "1s"), (None, "60s")])
async def test_a_ttl_is_kept_in_whole_seconds_and_never_shortened(
    locks: Kv[PushLeaseRecord], ttl: float | None, header: str
) -> None:
    await locks.create("k", record("a"), ttl=ttl, deadline=soon())
    reply = await locks.bus.request(f"$JS.API.DIRECT.GET.KV_locks.{locks.subject('k')}", deadline=soon())
    assert reply.headers["Nats-TTL"] == header


async def test_what_expires_is_told_by_the_server_and_what_is_deleted_is_not(bus: Bus) -> None:
    leases = await open_bucket(bus, replace(buckets.PUSH_LEASES, announced=True), replicas=1, deadline=soon())
    heard: asyncio.Queue[str] = asyncio.Queue()
    async with aclosing(expiries(leases)) as keys, background() as group, asyncio.timeout(20.0):

        async def listen() -> None:
            async for key in keys:
                heard.put_nowait(key)

        task = group.create_task(listen())
        while not await consumers(bus, leases.stream):  # noqa: ASYNC110 - the server tells nobody of a consumer
            await asyncio.sleep(0)
        revision = await leases.create("deleted", record("a"), ttl=1.0, deadline=soon())
        await leases.delete("deleted", revision=revision, deadline=soon())
        await leases.create("stays", record("a"), ttl=60.0, deadline=soon())
        renewed = await leases.create("renewed", record("a"), ttl=1.0, deadline=soon())
        await leases.update("renewed", record("a"), revision=renewed, ttl=60.0, deadline=soon())
        await leases.create("first", record("a"), ttl=1.0, deadline=soon())
        assert await heard.get() == "first"
        # One that has expired can be written again at once.
        await leases.create("first", record("b"), ttl=60.0, deadline=soon())
        # Where a connection breaks it goes on.
        generation = bus.generation
        await bus._nats.client.force_reconnect()
        await bus.wait_generation(generation)
        await leases.create("second", record("a"), ttl=2.0, deadline=soon())
        assert await heard.get() == "second"
        task.cancel()
    assert heard.empty()


async def consumers(bus: Bus, stream: str) -> int:
    """Return how many consumers a stream has."""
    reply = await bus.request(f"$JS.API.STREAM.INFO.{stream}", deadline=soon())
    return int(json.loads(reply.body)["state"]["consumer_count"])
