"""A compare-and-set in KV whose outcome is looked up when its answer is lost, and that never claims another's write."""

import asyncio

import pytest

from membridge.aio.deadline import Deadline
from membridge.bus import connection, jetstream, kv
from membridge.bus.kv import Kv
from membridge.errors import BusUnavailableError, DeadlineExceededError, MembridgeError, RevisionMovedError
from schemas.buckets import PushLeaseRecord
from tests.fixtures.relay import Losses

KEY = "k"
#: From a key that does not exist, and from one that does.
FROM = pytest.mark.parametrize("exists", [False, True], ids=["create", "update"])


def soon() -> Deadline:
    return Deadline.after(10.0)


def brief() -> Deadline:
    """Return a deadline that passes before the answer is given up."""
    return Deadline.after(0.5)


def record(owner: str) -> PushLeaseRecord:
    return PushLeaseRecord(owner=owner, since="now", nonce=f"of {owner}")


async def moved(locks: Kv[PushLeaseRecord], owner: str, revision: int, *, deadline: Deadline | None = None) -> int:
    return await locks.move(
        KEY, record(owner), revision=revision, nonce=lambda value: value.nonce, deadline=deadline or soon()
    )


async def outcome(locks: Kv[PushLeaseRecord], revision: int) -> MembridgeError | int:
    """Return what a move without an answer ends with."""
    try:
        return await moved(locks, "a", revision, deadline=brief())
    except MembridgeError as error:
        return error


async def before(locks: Kv[PushLeaseRecord], *, exists: bool) -> int:
    """Return the revision to start from."""
    return await locks.create(KEY, record("before"), deadline=soon()) if exists else 0


async def now(locks: Kv[PushLeaseRecord]) -> tuple[str, int] | None:
    entry = await locks.get(KEY, deadline=soon())
    return None if entry is None else (entry.value.owner, entry.revision)


@FROM
async def test_it_is_stored(locks: Kv[PushLeaseRecord], exists: bool) -> None:
    start = await before(locks, exists=exists)

    revision = await moved(locks, "a", start)

    assert revision > start
    assert await now(locks) == ("a", revision)


@FROM
async def test_another_writer_was_first(locks: Kv[PushLeaseRecord], exists: bool) -> None:
    start = await before(locks, exists=exists)
    first = await moved(locks, "first", start)

    with pytest.raises(RevisionMovedError):
        await moved(locks, "a", start)

    assert await now(locks) == ("first", first)


@FROM
async def test_its_own_value_that_another_process_wrote_is_its_own(locks: Kv[PushLeaseRecord], exists: bool) -> None:
    start = await before(locks, exists=exists)
    stored = await moved(locks, "a", start)

    assert await moved(locks, "a", start) == stored


@FROM
async def test_an_answer_that_was_lost_is_looked_up_after_its_own_deadline(
    locks: Kv[PushLeaseRecord], lossy: Kv[PushLeaseRecord], losses: Losses, exists: bool
) -> None:
    start = await before(locks, exists=exists)
    losses.arm(1)

    revision = await moved(lossy, "a", start, deadline=brief())

    assert losses.lost.is_set()
    assert await now(locks) == ("a", revision)


@FROM
async def test_a_request_that_was_lost_is_not_stored(
    locks: Kv[PushLeaseRecord], lossy: Kv[PushLeaseRecord], losses: Losses, exists: bool
) -> None:
    start = await before(locks, exists=exists)
    there, losses.requests = await now(locks), True
    losses.arm(1)

    with pytest.raises(DeadlineExceededError):
        await moved(lossy, "a", start, deadline=brief())

    assert losses.lost.is_set()
    assert await now(locks) == there


@FROM
async def test_a_request_that_was_lost_is_not_taken_for_the_write_of_another(
    locks: Kv[PushLeaseRecord], lossy: Kv[PushLeaseRecord], losses: Losses, exists: bool
) -> None:
    start = await before(locks, exists=exists)
    losses.requests = True
    losses.arm(1)

    async with asyncio.TaskGroup() as group:
        late = group.create_task(outcome(lossy, start))
        await losses.lost.wait()
        first = await moved(locks, "first", start)

    assert isinstance(late.result(), DeadlineExceededError)
    assert await now(locks) == ("first", first)


async def test_without_an_answer_to_the_look_either_the_first_error_stands(
    locks: Kv[PushLeaseRecord], lossy: Kv[PushLeaseRecord], losses: Losses, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = await before(locks, exists=True)
    losses.arm(1)

    async def away(*_: object, **__: object) -> None:
        raise BusUnavailableError("the connection to NATS is down")

    with monkeypatch.context() as patched:
        patched.setattr(Kv, "get", away)
        with pytest.raises(DeadlineExceededError):
            await moved(lossy, "a", start, deadline=brief())

    # It was stored all the same, and whoever asks again learns it.
    assert losses.lost.is_set()
    stored = await now(locks)
    assert stored is not None
    assert stored[0] == "a"
    assert await moved(lossy, "a", start) == stored[1]


async def test_the_look_ends(
    locks: Kv[PushLeaseRecord], lossy: Kv[PushLeaseRecord], losses: Losses, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server is cut off after the write: the look does not wait for ever."""
    monkeypatch.setattr(kv, "LOOK", 0.5)
    monkeypatch.setattr(connection, "ANSWER", 0.5)
    monkeypatch.setattr(jetstream, "ANSWER", 0.5)
    start = await before(locks, exists=True)
    losses.arm(1)

    async def deaf(*_: object, deadline: Deadline, **__: object) -> None:
        async with deadline.scope("reading"):
            await asyncio.Event().wait()

    monkeypatch.setattr(jetstream, "last_of", deaf)
    with pytest.raises(DeadlineExceededError):
        await moved(lossy, "a", start)


async def test_an_entry_that_a_replica_has_late_is_found(
    locks: Kv[PushLeaseRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    start = await before(locks, exists=True)
    old = await locks.get(KEY, deadline=soon())
    stored = await moved(locks, "a", start)
    read, behind = Kv.get, iter([old, old])

    async def late(self: Kv[PushLeaseRecord], key: str, *, deadline: Deadline) -> object:
        return next(behind, None) or await read(self, key, deadline=deadline)

    monkeypatch.setattr(Kv, "get", late)

    assert await moved(locks, "a", start) == stored
