"""What the store in NATS frees: deleted objects, and chunks of killed uploads; never one that may still end."""

import pytest

from membridge.aio.deadline import Deadline
from membridge.bus.connection import Bus
from membridge.objectstore.jetstream import BUCKET, JetStreamStore
from membridge.objectstore.reclaiming import reclaim_deleted, reclaim_loose


def soon() -> Deadline:
    return Deadline.after(20.0)


@pytest.fixture
async def store(bus: Bus) -> JetStreamStore:
    """A store whose user may not purge by itself, as a node with a key of its own."""
    made = JetStreamStore(bus, BUCKET, purges=False)
    await made.ensure(replicas=1, deadline=soon())
    return made


async def chunk(bus: Bus, nuid: str) -> None:
    """Store a chunk of an upload that never ends."""
    await bus.request(f"$O.{BUCKET}.C.{nuid}", b"x" * 1000, deadline=soon())


async def test_an_upload_that_was_killed_is_freed_at_the_second_look(bus: Bus, store: JetStreamStore) -> None:
    await store.put("whole", b"w" * 300_000, deadline=soon())
    await chunk(bus, "killed")
    await chunk(bus, "killed")
    await chunk(bus, "slow")
    seen = await reclaim_loose(store, {}, deadline=soon())
    assert seen == {"killed": 2, "slow": 1}
    await chunk(bus, "slow")
    seen = await reclaim_loose(store, seen, deadline=soon())
    assert seen == {"slow": 2}
    assert "killed" not in await store.chunk_counts(deadline=soon())
    assert await reclaim_loose(store, seen, deadline=soon()) == {}
    assert len(await store.chunk_counts(deadline=soon())) == 1
    assert await store.get("whole", deadline=soon()) == b"w" * 300_000


async def test_deleted_and_replaced_objects_are_freed_and_others_are_not(bus: Bus, store: JetStreamStore) -> None:
    for key in ("kept", "deleted", "replaced"):
        await store.put(key, key.encode(), deadline=soon())
    await store.put("replaced", b"again", if_absent=False, deadline=soon())
    await store.delete("deleted", deadline=soon())
    assert len(await store.chunk_counts(deadline=soon())) == 4
    assert await reclaim_deleted(store, deadline=soon()) == 1
    assert len(await store.chunk_counts(deadline=soon())) == 2
    assert await reclaim_loose(store, {}, deadline=soon()) == {}
    assert [item.key async for item in store.list("", deadline=soon())] == ["kept", "replaced"]
    assert await store.get("replaced", deadline=soon()) == b"again"
