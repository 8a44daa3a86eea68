"""What every object store does, whichever it is: the same tests on both."""

import asyncio
import hashlib
import random
from pathlib import Path

import pytest

from membridge.aio.deadline import Deadline
from membridge.errors import InvalidRequestError, ObjectExistsError, ObjectMissingError, TooLargeError
from membridge.objectstore.protocol import MAX_GET_BYTES, ObjectStore
from tests.fixtures.seaweed import fetch


def soon() -> Deadline:
    return Deadline.after(60.0)


@pytest.fixture
def store(lane_store: ObjectStore) -> ObjectStore:
    return lane_store


def some_bytes(size: int) -> bytes:
    return random.Random(size).randbytes(size)


@pytest.mark.parametrize("size", [0, 1, 131_072, 131_073, 1_000_000])
async def test_what_was_put_comes_back(store: ObjectStore, size: int) -> None:
    body = some_bytes(size)
    await store.put("a/b.bin", body, deadline=soon())
    assert await store.get("a/b.bin", deadline=soon()) == body
    info = await store.head("a/b.bin", deadline=soon())
    assert info is not None
    assert (info.key, info.size_bytes) == ("a/b.bin", size)


@pytest.mark.parametrize(
    ("start", "length"), [(0, 10), (5, 10), (131_070, 10), (0, 0), (299_990, 100), (299_999, None)]
)
async def test_a_range_is_that_part_of_the_object(store: ObjectStore, start: int, length: int | None) -> None:
    body = some_bytes(300_000)
    await store.put("ranged", body, deadline=soon())
    expected = body[start:] if length is None else body[start : start + length]
    assert await store.get("ranged", start=start, length=length, deadline=soon()) == expected


async def test_a_file_goes_up_and_comes_down_whole(store: ObjectStore, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    body = some_bytes(12 << 20)
    source.write_bytes(body)
    told: list[tuple[int, int]] = []
    await store.upload("large", source, deadline=soon(), progress=lambda done, total: told.append((done, total)))
    await store.download("large", target, deadline=soon())
    assert hashlib.sha256(target.read_bytes()).digest() == hashlib.sha256(body).digest()
    assert told[-1] == (len(body), len(body))


async def test_a_download_goes_on_where_it_stopped(store: ObjectStore, tmp_path: Path) -> None:
    body = some_bytes(700_000)
    await store.put("part", body, deadline=soon())
    target = tmp_path / "target"
    target.write_bytes(body[:250_000])
    await store.download("part", target, start=250_000, deadline=soon())
    assert target.read_bytes() == body


async def test_a_taken_key_stays_as_it_is_unless_overwriting_is_meant(store: ObjectStore, tmp_path: Path) -> None:
    await store.put("k", b"first", deadline=soon())
    with pytest.raises(ObjectExistsError):
        await store.put("k", b"second", deadline=soon())
    source = tmp_path / "source"
    source.write_bytes(some_bytes(6 << 20))
    with pytest.raises(ObjectExistsError):
        await store.upload("k", source, deadline=soon())
    assert await store.get("k", deadline=soon()) == b"first"
    await store.put("k", b"third", if_absent=False, deadline=soon())
    assert await store.get("k", deadline=soon()) == b"third"


async def test_of_many_writers_of_one_key_exactly_one_wins(store: ObjectStore) -> None:
    won: list[bytes] = []

    async def contend(number: int) -> None:
        body = f"writer {number}".encode() * 100
        try:
            await store.put("raced", body, deadline=soon())
        except ObjectExistsError:
            return
        won.append(body)

    async with asyncio.TaskGroup() as group:
        for number in range(8):
            group.create_task(contend(number))
    assert won == [await store.get("raced", deadline=soon())]


async def test_a_listing_is_in_order_and_begins_where_it_is_told(store: ObjectStore) -> None:
    for key in ("p/c", "p/a", "p/b", "q/a", "p/bb/deep"):
        await store.put(key, b"x", deadline=soon())
    assert [info.key async for info in store.list("p/", deadline=soon())] == ["p/a", "p/b", "p/bb/deep", "p/c"]
    assert [info.key async for info in store.list("p/", after="p/b", deadline=soon())] == ["p/bb/deep", "p/c"]
    assert [info.key async for info in store.list("nothing/", deadline=soon())] == []


async def test_a_deleted_object_is_gone_and_its_key_is_free(store: ObjectStore) -> None:
    await store.put("k", b"one", deadline=soon())
    await store.delete("k", deadline=soon())
    await store.delete("k", deadline=soon())
    assert await store.head("k", deadline=soon()) is None
    assert [info.key async for info in store.list("", deadline=soon())] == []
    await store.put("k", b"two", deadline=soon())
    assert await store.get("k", deadline=soon()) == b"two"


async def test_what_is_not_there_is_said_to_be_missing(store: ObjectStore, tmp_path: Path) -> None:
    with pytest.raises(ObjectMissingError):
        await store.get("nothing", deadline=soon())
    with pytest.raises(ObjectMissingError):
        await store.download("nothing", tmp_path / "target", deadline=soon())
    assert await store.head("nothing", deadline=soon()) is None


@pytest.mark.parametrize("key", ["", "/abs", "a//b", "../up", "a/../b", "a b", "ünï", "x" * 600])
async def test_a_key_that_could_leave_its_place_is_refused(store: ObjectStore, key: str) -> None:
    with pytest.raises(InvalidRequestError):
        await store.put(key, b"x", deadline=soon())


async def test_a_large_object_is_not_read_into_memory_at_once(store: ObjectStore, tmp_path: Path) -> None:
    source = tmp_path / "source"
    with source.open("wb") as file:
        file.truncate(MAX_GET_BYTES + 1)
    await store.upload("large", source, deadline=soon())
    with pytest.raises(TooLargeError):
        await store.get("large", deadline=soon())


async def test_a_store_says_what_it_is_and_that_it_honours_conditions(store: ObjectStore) -> None:
    described = await store.describe(deadline=soon())
    assert described.kind in {"s3", "jetstream"}
    assert described.conditional_put
    assert "secret" not in described.location
    assert [info.key async for info in store.list("", deadline=soon())] == []


async def test_an_address_opens_its_object_to_whoever_has_it_and_for_its_time_only(store: ObjectStore) -> None:
    await store.put("shared", b"for a while", deadline=soon())
    address = await store.share("shared", seconds=2, deadline=soon())
    described = await store.describe(deadline=soon())
    if described.kind != "s3" or described.encrypted_with:
        assert address is None
        return
    assert address is not None
    assert await asyncio.to_thread(fetch, address) == b"for a while"
    assert await asyncio.to_thread(fetch, address.replace("shared", "other")) is None
    async with asyncio.timeout(10.0):
        while await asyncio.to_thread(fetch, address) is not None:
            pass
