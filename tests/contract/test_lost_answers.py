"""The answer to a write is lost, not the write: the object is stored or it is not, and never damaged."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from membridge.aio.deadline import Deadline
from membridge.bus import connection, jetstream
from membridge.bus.connection import Bus, connect
from membridge.bus.options import BusOptions
from membridge.errors import MembridgeError, ObjectExistsError
from membridge.objectstore.jetstream import JetStreamStore, open_jetstream
from membridge.objectstore.messages import Meta
from membridge.objectstore.protocol import ObjectStore
from membridge.objectstore.s3.client import S3Options, open_s3
from tests.fixtures.relay import Losses, relayed

BODY, OTHER = b"b" * 200_000, b"o" * 300_000
KEY = "commits/7.json"


def soon() -> Deadline:
    return Deadline.after(30.0)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that does not come is given up soon."""
    monkeypatch.setattr(connection, "ANSWER", 1.0)
    monkeypatch.setattr(jetstream, "ANSWER", 1.0)


@asynccontextmanager
async def lossy(nats_url: str) -> AsyncGenerator[tuple[JetStreamStore, Losses]]:
    """Open the store in NATS behind a relay of its own."""
    losses = Losses()
    async with (
        relayed(nats_url, losses) as url,
        connect(BusOptions(urls=(url,), name="lossy"), deadline=soon()) as bus,
        open_jetstream(bus) as store,
    ):
        assert isinstance(store, JetStreamStore)
        yield store, losses


async def found(store: ObjectStore, key: str) -> bytes | None:
    """Return the whole object, None when there is none; one that cannot be read fails the test."""
    if await store.head(key, deadline=soon()) is None:
        return None
    return await store.get(key, deadline=soon())


Act = Callable[[ObjectStore, str, Path], Awaitable[None]]


async def put(store: ObjectStore, key: str, source: Path) -> None:
    del source
    await store.put(key, BODY, deadline=soon())


async def overwrite(store: ObjectStore, key: str, source: Path) -> None:
    del source
    await store.put(key, BODY, if_absent=False, deadline=soon())


async def upload(store: ObjectStore, key: str, source: Path) -> None:
    await store.upload(key, source, deadline=soon())


async def delete(store: ObjectStore, key: str, source: Path) -> None:
    del source
    await store.delete(key, deadline=soon())


LARGE = b"l" * (6 << 20)
#: What is done, what was there before and what is there after.
ACTS: list[tuple[Act, bytes | None, bytes | None]] = [
    (put, None, BODY),
    (overwrite, OTHER, BODY),
    (upload, None, LARGE),
    (delete, OTHER, None),
]
NAMES = ["put", "overwrite", "upload", "delete"]


async def once(act: Act, store: ObjectStore, losses: Losses, source: Path, number: int) -> tuple[bool, bytes | None]:
    """Lose the answer to write `number`; return whether the act said that it was done, and what is there."""
    key = f"{act.__name__}/{number}"
    before = dict(zip(NAMES, ACTS, strict=True))[act.__name__][1]
    if before is not None:
        await store.put(key, before, deadline=soon())
    losses.arm(number)
    try:
        await act(store, key, source)
        done = True
    except MembridgeError:
        done = False
    losses.disarm()
    there = await found(store, key)
    # Whatever it was, the next one works.
    await store.put(key, OTHER, if_absent=False, deadline=soon())
    assert await found(store, key) == OTHER
    await store.delete(key, deadline=soon())
    assert await found(store, key) is None
    await store.put(key, BODY, deadline=soon())
    return done, there


@pytest.mark.parametrize(("act", "before", "after"), ACTS, ids=NAMES)
async def test_of_each_write_in_nats(
    act: Act, before: bytes | None, after: bytes | None, nats_url: str, bus: Bus, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    source.write_bytes(LARGE)
    async with open_jetstream(bus) as plain, lossy(nats_url) as (store, losses):
        losses.arm()
        if before is not None:
            await plain.put("counted", before, deadline=soon())
        await act(store, "counted", source)
        writes = [*losses.writes]
    assert len(writes) >= 3
    # Of many chunks the first and the last two tell as much as all.
    numbers = sorted({1, *range(max(1, len(writes) - 3), len(writes) + 1)})
    results: dict[int, tuple[bool, bytes | None]] = {}

    async def attempt(number: int) -> None:
        async with lossy(nats_url) as (store, losses):
            results[number] = await once(act, store, losses, source, number)

    async with asyncio.TaskGroup() as group:
        for number in numbers:
            group.create_task(attempt(number))
    for number, (done, there) in results.items():
        assert there in {before, after}, writes[number - 1]
        assert there == after or not done, writes[number - 1]


async def test_of_each_write_on_s3(s3_options: S3Options, tmp_path: Path) -> None:
    source, losses = tmp_path / "source", Losses()
    source.write_bytes(LARGE)
    async with relayed(s3_options.endpoint, losses) as endpoint:
        options = S3Options(endpoint, s3_options.access_key, s3_options.secret_key, s3_options.bucket)
        async with open_s3(options) as store:
            for act, before, after in ACTS:
                if before is not None:
                    await store.put("counted", before, if_absent=False, deadline=soon())
                losses.arm()
                await act(store, "counted", source)
                await store.delete("counted", deadline=soon())
                for number in range(1, len(losses.writes)):
                    done, there = await once(act, store, losses, source, number)
                    assert there in {before, after}, (act.__name__, number)
                    assert there == after or not done


async def test_a_stored_commit_record_is_found_again_and_its_put_succeeds(nats_url: str) -> None:
    """The put used to forget the chunks of the object that it had just stored."""
    async with lossy(nats_url) as (store, losses):
        losses.arm(1, r"\.M\.")
        await store.put(KEY, BODY, deadline=soon())
        assert losses.lost.is_set()
        assert await found(store, KEY) == BODY
        with pytest.raises(ObjectExistsError):
            await store.put(KEY, OTHER, deadline=soon())
        assert await found(store, KEY) == BODY


async def test_a_put_that_is_cancelled_while_it_waits_leaves_a_whole_object(nats_url: str) -> None:
    async with lossy(nats_url) as (store, losses):
        losses.arm(1, r"\.M\.")
        async with asyncio.TaskGroup() as group:
            putting = group.create_task(store.put(KEY, BODY, deadline=soon()))
            await losses.lost.wait()
            putting.cancel()
        assert putting.cancelled()
        assert await found(store, KEY) == BODY


async def test_a_put_that_another_writer_overtook_meanwhile_is_refused_and_harms_nothing(
    nats_url: str, bus: Bus
) -> None:
    """The answer is lost, the object deleted and the key taken by another: what was stored is not ours any more."""
    async with open_jetstream(bus) as plain, lossy(nats_url) as (store, losses):
        losses.arm(1, r"\.M\.")
        async with asyncio.TaskGroup() as group:
            putting = group.create_task(_refused(store.put(KEY, BODY, deadline=soon())))
            await losses.lost.wait()
            await plain.delete(KEY, deadline=soon())
            await plain.put(KEY, OTHER, deadline=soon())
        assert putting.result()
        assert await found(plain, KEY) == OTHER


async def test_an_object_that_is_replaced_while_it_is_read_is_read_whole(
    nats_url: str, bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_jetstream(bus) as plain, lossy(nats_url) as (store, _):
        await store.put(KEY, BODY, deadline=soon())
        current: Callable[..., Awaitable[tuple[Meta | None, int]]] = getattr(store, "_last")  # noqa: B009
        stale = await current(KEY, deadline=soon())
        await plain.put(KEY, OTHER, if_absent=False, deadline=soon())
        answers = [stale]

        async def behind(key: str, *, deadline: Deadline) -> tuple[Meta | None, int]:
            return answers.pop() if answers else await current(key, deadline=deadline)

        monkeypatch.setattr(store, "_last", behind)
        assert await store.get(KEY, deadline=soon()) == OTHER


async def _refused(call: Awaitable[None]) -> bool:
    try:
        await call
    except ObjectExistsError:
        return True
    return False
