"""A lease through lost answers, take-overs, expiry and cancellation: only another's entry, or none, is a loss."""

import asyncio

import pytest

from membridge.aio.deadline import Deadline
from membridge.bus.kv import Entry, Kv
from membridge.bus.lease import Lease, LeaseGoneError
from membridge.bus.watch import watch
from membridge.errors import RevisionMovedError
from schemas.buckets import PushLeaseRecord
from tests.fixtures.relay import Losses

KEY = "k"


def soon() -> Deadline:
    return Deadline.after(10.0)


def brief() -> Deadline:
    """Return a deadline of which one unanswered write spends half."""
    return Deadline.after(2.0)


def record(owner: str) -> PushLeaseRecord:
    return PushLeaseRecord(owner=owner, since="now", nonce=f"of {owner}")


def lease_of(kv: Kv[PushLeaseRecord]) -> Lease[PushLeaseRecord]:
    return Lease(kv, KEY, nonce=lambda value: value.nonce)


async def there(kv: Kv[PushLeaseRecord]) -> Entry[PushLeaseRecord] | None:
    return await kv.get(KEY, deadline=soon())


async def owner(kv: Kv[PushLeaseRecord]) -> str | None:
    entry = await there(kv)
    return None if entry is None else entry.value.owner


async def taken_over(kv: Kv[PushLeaseRecord]) -> None:
    entry = await there(kv)
    assert entry is not None
    await kv.update(KEY, record("another"), revision=entry.revision, deadline=soon())


async def test_one_whose_acquisition_or_renewal_got_no_answer_is_held_and_given_back(
    locks: Kv[PushLeaseRecord], lossy: Kv[PushLeaseRecord], losses: Losses
) -> None:
    lease = lease_of(lossy)
    losses.arm(1)
    held = await lease.acquire(record("a"), None, deadline=brief())
    for _ in range(2):
        entry = await there(locks)
        assert entry is not None
        assert (entry.value.owner, entry.revision) == ("a", held.revision)
        assert losses.lost.is_set()
        losses.arm(1)
        before, asked = held, lease.now()
        held = await lease.renew(record("a"), deadline=brief())
        # What is believed counts from the write that is known to be stored, not from the one that was lost.
        assert held.sent_at > max(before.sent_at, asked)
    losses.arm(1, "KV")
    assert await lease.release(deadline=brief())
    assert losses.lost.is_set()
    assert await there(locks) is None
    await lease_of(locks).acquire(record("b"), None, deadline=soon())


async def test_a_renewal_whose_caller_gave_up_is_found_by_the_next_one_and_by_the_release(
    locks: Kv[PushLeaseRecord], lossy: Kv[PushLeaseRecord], losses: Losses
) -> None:
    lease = lease_of(lossy)
    await lease.acquire(record("a"), None, deadline=brief())
    for finish in (lease.renew(record("a"), deadline=soon()), lease.release(deadline=brief())):
        losses.arm(1)
        async with asyncio.TaskGroup() as group:
            renewing = group.create_task(lease.renew(record("a"), deadline=brief()))
            await losses.lost.wait()
            renewing.cancel()
        await finish
    assert await there(locks) is None


@pytest.mark.parametrize("step", ["acquire", "renew"])
async def test_one_that_was_taken_over_after_the_answer_was_lost_is_lost(
    step: str, locks: Kv[PushLeaseRecord], lossy: Kv[PushLeaseRecord], losses: Losses
) -> None:
    lease = lease_of(lossy)
    if step == "renew":
        await lease.acquire(record("a"), None, deadline=brief())
        call = lease.renew(record("a"), deadline=brief())
    else:
        call = lease.acquire(record("a"), None, deadline=brief())
    losses.arm(1)
    async with asyncio.TaskGroup() as group:
        writing = group.create_task(_raised(call))
        await losses.lost.wait()
        await taken_over(locks)
    assert type(writing.result()) is RevisionMovedError
    assert not await lease.release(deadline=brief())
    assert await owner(locks) == "another"


async def test_one_that_is_gone_is_told_from_one_that_was_taken_over(locks: Kv[PushLeaseRecord]) -> None:
    lease = lease_of(locks)
    await lease.acquire(record("a"), None, ttl=1.0, deadline=brief())
    async with asyncio.timeout(10.0):
        async for change in watch(locks, KEY):
            if change.entry is None:
                break
    with pytest.raises(LeaseGoneError):
        await lease.renew(record("a"), deadline=brief())
    await lease.acquire(record("a"), None, deadline=brief())
    await taken_over(locks)
    with pytest.raises(RevisionMovedError) as lost:
        await lease.renew(record("a"), deadline=brief())
    assert not isinstance(lost.value, LeaseGoneError)


async def test_what_a_cancelled_acquisition_stored_is_taken_back(
    locks: Kv[PushLeaseRecord], lossy: Kv[PushLeaseRecord], losses: Losses
) -> None:
    lease = lease_of(lossy)
    losses.arm(1)
    async with asyncio.TaskGroup() as group:
        acquiring = group.create_task(lease.acquire(record("a"), None, deadline=Deadline.after(60.0)))
        await losses.lost.wait()
        assert await owner(locks) == "a"
        acquiring.cancel()
    await lease.release(deadline=brief())
    assert await there(locks) is None


async def _raised(call: object) -> BaseException | None:
    try:
        await call  # type: ignore[misc]
    except RevisionMovedError as error:
        return error
    return None
