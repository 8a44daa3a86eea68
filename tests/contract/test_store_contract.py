"""Edges at which two kinds of store drift apart first: bounds, empty objects, overwriting, prefixes, races of files."""

import asyncio
import hashlib
import random
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from membridge.aio.deadline import Deadline
from membridge.errors import (
    CorruptObjectError,
    InvalidRequestError,
    MembridgeError,
    ObjectExistsError,
    ObjectMissingError,
    TooLargeError,
)
from membridge.objectstore.encryption.guard import backend
from membridge.objectstore.jetstream import JetStreamStore
from membridge.objectstore.protocol import MAX_GET_BYTES, ObjectStore


def soon() -> Deadline:
    return Deadline.after(30.0)


def some_bytes(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


async def keys(store: ObjectStore, prefix: str, after: str = "") -> list[str]:
    return [info.key async for info in store.list(prefix, after=after, deadline=soon())]


async def winners(writers: list[Callable[[], Awaitable[None]]]) -> list[int]:
    """Run all writers at once; return which of them were not told that the key is taken."""
    won: list[int] = []

    async def one(number: int) -> None:
        try:
            await writers[number]()
        except ObjectExistsError:
            return
        won.append(number)

    async with asyncio.TaskGroup() as group:
        for number in range(len(writers)):
            group.create_task(one(number))
    return won


async def test_the_largest_body_goes_through_put_and_get_and_one_byte_more_does_not(lane_store: ObjectStore) -> None:
    body = some_bytes(MAX_GET_BYTES)
    await lane_store.put("largest", body, deadline=soon())
    assert await lane_store.get("largest", deadline=soon()) == body
    with pytest.raises(TooLargeError):
        await lane_store.put("larger", body + b"x", deadline=soon())
    assert await lane_store.head("larger", deadline=soon()) is None


async def test_a_range_that_passes_the_end_is_cut_there(lane_store: ObjectStore) -> None:
    await lane_store.put("k", b"0123456789", deadline=soon())
    asked = [(8, 100), (10, 1), (10, None), (50, None), (50, 5), (9, 1)]
    got = [await lane_store.get("k", start=start, length=length, deadline=soon()) for start, length in asked]
    assert got == [b"89", b"", b"", b"", b"", b"9"]


async def test_an_empty_object_is_an_object(lane_store: ObjectStore, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.touch()
    target.write_bytes(b"old")
    await lane_store.upload("file", source, deadline=soon())
    await lane_store.put("body", b"", deadline=soon())
    await lane_store.download("file", target, deadline=soon())
    assert target.read_bytes() == b""
    assert await lane_store.get("body", length=5, deadline=soon()) == b""
    assert await keys(lane_store, "") == ["body", "file"]
    with pytest.raises(ObjectExistsError):
        await lane_store.put("body", b"", deadline=soon())


async def test_a_download_replaces_a_longer_file_and_a_resumed_one_what_follows(
    lane_store: ObjectStore, tmp_path: Path
) -> None:
    body, target = some_bytes(400_000), tmp_path / "target"
    await lane_store.put("k", body, deadline=soon())
    for start, before in [(0, bytes(900_000)), (100_000, body[:100_000] + bytes(700_000)), (400_000, body)]:
        target.write_bytes(before)
        await lane_store.download("k", target, start=start, deadline=soon())
        assert target.read_bytes() == body


async def test_going_on_behind_the_end_of_an_object_is_an_error(lane_store: ObjectStore, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(bytes(20))
    await lane_store.put("k", b"short", deadline=soon())
    with pytest.raises(CorruptObjectError):
        await lane_store.download("k", target, start=20, deadline=soon())


async def test_overwriting_a_file_leaves_the_new_one_whole(lane_store: ObjectStore, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    for size in (12 << 20, 6 << 20, 10):
        source.write_bytes(some_bytes(size, seed=size))
        await lane_store.upload("k", source, if_absent=False, deadline=soon())
        await lane_store.download("k", target, deadline=soon())
        assert hashlib.sha256(target.read_bytes()).digest() == hashlib.sha256(source.read_bytes()).digest()
    assert await keys(lane_store, "") == ["k"]


@pytest.mark.parametrize("size", [100_000, 6 << 20])
async def test_of_eight_files_uploaded_to_one_key_the_one_that_stays_is_whole_and_was_told_so(
    lane_store: ObjectStore, tmp_path: Path, size: int
) -> None:
    def writer(number: int) -> Callable[[], Awaitable[None]]:
        source = tmp_path / str(number)
        source.write_bytes(bytes([number]) * size)
        return lambda: lane_store.upload("raced", source, deadline=soon())

    won = await winners([writer(number) for number in range(8)])
    target = tmp_path / "target"
    await lane_store.download("raced", target, deadline=soon())
    assert target.read_bytes() in [bytes([number]) * size for number in won]
    # SeaweedFS looks at the condition of a multipart upload and then completes it: several may pass. Only `put`, which
    # fences commits, and files of one part had exactly one winner.
    if size < 6 << 20 or isinstance(backend(lane_store), JetStreamStore):
        assert len(won) == 1


async def test_a_key_that_was_deleted_is_raced_for_anew(lane_store: ObjectStore) -> None:
    await lane_store.put("k", b"before", deadline=soon())
    await lane_store.delete("k", deadline=soon())
    bodies = [f"body {number}".encode() for number in range(8)]
    won = await winners([lambda body=body: lane_store.put("k", body, deadline=soon()) for body in bodies])
    assert [bodies[number] for number in won] == [await lane_store.get("k", deadline=soon())]


async def test_a_prefix_ends_anywhere_in_a_key_and_keys_are_ordered_by_their_bytes(lane_store: ObjectStore) -> None:
    # Within one folder: SeaweedFS orders folders among files by its own rule. No key lies below another one: MinIO
    # stores both and lists only the upper one.
    for key in ("p/10", "p/9", "p/a", "p/B", "p/ab/c", "pp"):
        await lane_store.put(key, b"x", deadline=soon())
    assert await keys(lane_store, "p/") == ["p/10", "p/9", "p/B", "p/a", "p/ab/c"]
    assert await keys(lane_store, "p/a") == ["p/a", "p/ab/c"]
    assert await keys(lane_store, "p/ab/", after="p/ab/b") == ["p/ab/c"]
    assert await keys(lane_store, "p/", after="p/ab0") == []
    await lane_store.delete("p/9", deadline=soon())
    assert await keys(lane_store, "p/", after="p/10") == ["p/B", "p/a", "p/ab/c"]


async def test_a_listing_may_be_left_early_and_the_store_goes_on(lane_store: ObjectStore) -> None:
    for key in ("a", "b", "c"):
        await lane_store.put(key, b"x", deadline=soon())
    async for info in lane_store.list("", deadline=soon()):
        assert info.key == "a"
        break
    assert await keys(lane_store, "") == ["a", "b", "c"]


async def test_no_verb_takes_a_bad_key(lane_store: ObjectStore, tmp_path: Path) -> None:
    source, target, key = tmp_path / "source", tmp_path / "target", "a/../../b"
    source.write_bytes(b"x")
    for call in (
        lane_store.get(key, deadline=soon()),
        lane_store.head(key, deadline=soon()),
        lane_store.delete(key, deadline=soon()),
        lane_store.upload(key, source, deadline=soon()),
        lane_store.download(key, target, deadline=soon()),
    ):
        with pytest.raises(InvalidRequestError):
            await call
    assert not target.exists()
    with pytest.raises(InvalidRequestError):
        await keys(lane_store, "../")


async def test_a_missing_object_leaves_a_file_that_was_there(lane_store: ObjectStore, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"kept")
    with pytest.raises(ObjectMissingError):
        await lane_store.download("nothing", target, deadline=soon())
    assert target.read_bytes() == b"kept"


async def test_a_file_that_cannot_be_read_or_written_is_an_error_of_ours(
    lane_store: ObjectStore, tmp_path: Path
) -> None:
    with pytest.raises(MembridgeError):
        await lane_store.upload("k", tmp_path / "absent", deadline=soon())
    await lane_store.put("k", b"x", deadline=soon())
    with pytest.raises(MembridgeError):
        await lane_store.download("k", tmp_path / "no" / "folder", deadline=soon())
