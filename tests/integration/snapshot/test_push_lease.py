"""The push lock: one push at a time, through lost answers, take-overs, expiry and cancellation."""

import asyncio

import pytest

from membridge.aio.deadline import Deadline
from membridge.bus.kv import Entry, Kv
from membridge.bus.watch import watch
from membridge.errors import LeaseHeldError, LeaseLostError
from membridge.snapshot.push_lease import PushClaim, PushLeaseOptions, push_lease
from schemas.buckets import PushLeaseRecord
from schemas.identity import NodeId, canonical_id
from tests.fixtures.relay import Losses

PROJECT = canonical_id("locked")
#: Renewed three times a second.
OPTIONS = PushLeaseOptions(ttl=60.0, grace=1.0)


def soon() -> Deadline:
    return Deadline.after(30.0)


def claim(node: str, epoch: int = 1) -> PushClaim:
    return PushClaim(PROJECT, NodeId(node), epoch)


async def entry_of(locks: Kv[PushLeaseRecord]) -> Entry[PushLeaseRecord] | None:
    return await locks.get(PROJECT, deadline=soon())


async def revision_after(locks: Kv[PushLeaseRecord], revision: int) -> int:
    """Wait for a later entry and return its revision."""
    async with asyncio.timeout(20.0):
        async for change in watch(locks, PROJECT):
            if change.entry is not None and change.entry.revision > revision:
                return change.entry.revision
    raise AssertionError


async def test_a_renewal_whose_answer_is_lost_does_not_end_the_push(
    locks: Kv[PushLeaseRecord], lossy: Kv[PushLeaseRecord], losses: Losses
) -> None:
    """It used to: "the push lock was taken over"."""
    async with push_lease(lossy, claim("a"), options=OPTIONS, deadline=soon()):
        losses.arm(1)
        await losses.lost.wait()
        entry = await entry_of(locks)
        assert entry is not None
        # It is renewed further, again and again.
        revision = await revision_after(locks, entry.revision)
        await revision_after(locks, revision)
    assert await entry_of(locks) is None


async def test_a_push_ends_when_another_one_takes_the_lock_for_real(locks: Kv[PushLeaseRecord]) -> None:
    forced = PushLeaseOptions(ttl=60.0, grace=1.0, force=True)

    async def push() -> None:
        async with (
            push_lease(locks, claim("a"), options=OPTIONS, deadline=soon()),
            push_lease(locks, claim("b"), options=forced, deadline=soon()),
        ):
            await asyncio.get_running_loop().create_future()

    with pytest.raises(LeaseLostError, match="has taken the push lock over"):
        await push()
    assert await entry_of(locks) is None


async def test_a_lock_that_expired_is_taken_again_while_no_other_node_has_it(locks: Kv[PushLeaseRecord]) -> None:
    async with push_lease(locks, claim("a"), options=OPTIONS, deadline=soon()):
        entry = await entry_of(locks)
        assert entry is not None
        await locks.delete(PROJECT, deadline=soon())
        await revision_after(locks, entry.revision)
        again = await entry_of(locks)
        assert again is not None
        assert again.value == entry.value
    assert await entry_of(locks) is None


async def test_a_push_that_is_cancelled_while_it_acquires_leaves_no_lock(
    locks: Kv[PushLeaseRecord], lossy: Kv[PushLeaseRecord], losses: Losses
) -> None:
    """The entry used to stay for the two hours of its life."""

    async def hold() -> None:
        async with push_lease(lossy, claim("a"), options=OPTIONS, deadline=soon()):
            raise AssertionError("acquired")

    losses.arm(1)
    async with asyncio.TaskGroup() as group:
        holding = group.create_task(hold())
        await losses.lost.wait()
        assert await entry_of(locks) is not None
        holding.cancel()
    assert await entry_of(locks) is None


async def test_one_that_is_renewed_is_waited_for_and_a_stale_one_or_an_older_epochs_is_taken(
    locks: Kv[PushLeaseRecord],
) -> None:
    async with push_lease(locks, claim("a"), options=OPTIONS, deadline=soon()):
        with pytest.raises(LeaseHeldError, match="a has been pushing"):
            async with push_lease(locks, claim("b"), options=OPTIONS, deadline=Deadline.after(2.0)):
                pass
    await locks.create(PROJECT, PushLeaseRecord(owner="killed", epoch=1, since="then"), deadline=soon())
    async with push_lease(locks, claim("b"), options=PushLeaseOptions(60.0, 0.5), deadline=soon()):
        entry = await entry_of(locks)
        assert entry is not None
        assert entry.value.owner == "b"
    await locks.create(PROJECT, PushLeaseRecord(owner="older", epoch=1, since="then"), deadline=soon())
    async with push_lease(locks, claim("c", epoch=2), options=PushLeaseOptions(60.0, 600.0), deadline=soon()):
        pass
