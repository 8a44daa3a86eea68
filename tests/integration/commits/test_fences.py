"""Commits are fenced in both stores, and a crash at any step is settled by the next push."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from membridge.claudemem.memory import memory_rows
from membridge.commits import heads, layout
from membridge.commits.chain import ChainPolicy
from membridge.commits.progress import ProgressTracker
from membridge.errors import (
    CorruptObjectError,
    HeadMovedError,
    StaleEpochError,
    StoreUnavailableError,
    UnsupportedFormatError,
)
from membridge.snapshot import push, recover
from membridge.snapshot.lane import Lane
from membridge.testing.writer import write
from schemas import buckets
from schemas.commits import RecoverRequest, RecoverySource
from schemas.snapshot import Head, PushOutcome, SnapshotKind
from schemas.wire import encode
from tests.fixtures.databases import execute
from tests.fixtures.lanes import Box, MakeBox, soon

SAMPLE = Path(__file__).parents[2] / "data" / "claude-mem-13.25.3.db"


def given_memory(box: Box) -> Box:
    shutil.copyfile(SAMPLE, box.database)
    return box


async def head_of(lane: Lane) -> heads.KnownHead:
    known = await heads.read(lane, deadline=soon())
    assert known is not None
    return known


async def test_an_expired_primary_can_upload_but_never_commit(make_box: MakeBox) -> None:
    a, b = given_memory(make_box("a")), make_box("b")
    await a.push(epoch=1)
    await b.pull()
    await push.commit_epoch(b.lane, epoch=2, deadline=soon())
    write(str(a.database), 3, "a")
    with pytest.raises(StaleEpochError, match="epoch 2, not 1"):
        await a.push(epoch=1)
    known = await head_of(a.lane)
    assert (known.record.seq, known.record.epoch, known.record.kind) == (2, 2, SnapshotKind.EMPTY)


async def test_a_commit_that_lost_the_race_changes_nothing(make_box: MakeBox) -> None:
    a, b = given_memory(make_box("a")), make_box("b")
    await a.push()
    await b.pull()
    before = await head_of(a.lane)
    write(str(a.database), 1, "a")
    await a.push()
    record = (await head_of(a.lane)).record
    stale = msgspec.structs.replace(record, nonce="other")
    with pytest.raises(HeadMovedError):
        await heads.commit(b.lane, stale, before, deadline=soon())
    assert (await head_of(a.lane)).record == record


async def test_a_commit_whose_head_never_moved_is_rolled_forward(make_box: MakeBox) -> None:
    a, b = given_memory(make_box("a")), make_box("b")
    await a.push()
    first = await head_of(a.lane)
    write(str(a.database), 3, "a")
    await a.push()
    second = await head_of(a.lane)
    # Killed between the record and the head: KV still names the first snapshot.
    await a.lane.heads.put(a.lane.project, _head(first), deadline=soon())
    settled = await heads.settle(b.lane, deadline=soon())
    assert settled is not None
    assert settled.record == second.record
    assert (await head_of(b.lane)).record == second.record


async def test_a_lost_bucket_is_rebuilt_from_the_records(make_box: MakeBox) -> None:
    a, b = given_memory(make_box("a")), make_box("b")
    await a.push(epoch=3)
    await a.lane.heads.delete(a.lane.project, deadline=soon())
    pulled = await b.pull()
    assert pulled.seq == 1
    write(str(a.database), 2, "a")
    assert (await a.push(epoch=3)).seq == 2


async def test_a_lost_object_store_gets_a_full_snapshot(make_box: MakeBox) -> None:
    a, b = given_memory(make_box("a")), make_box("b")
    await a.push()
    keys = [info.key async for info in a.lane.store.list("projects/", deadline=soon())]
    for key in keys:
        await a.lane.store.delete(key, deadline=soon())
    write(str(a.database), 2, "a")
    pushed = await a.push()
    assert (pushed.outcome, pushed.kind, pushed.seq) == (PushOutcome.COMMITTED, SnapshotKind.FULL, 2)
    await b.pull()
    assert memory_rows(b.database) == memory_rows(a.database)


async def test_a_head_that_went_back_does_not_take_memory(make_box: MakeBox) -> None:
    a, b = given_memory(make_box("a")), make_box("b")
    await a.push()
    old = await head_of(a.lane)
    write(str(a.database), 4, "a")
    await a.push()
    await b.pull()
    rows = memory_rows(b.database)
    await a.lane.heads.put(a.lane.project, _head(old), deadline=soon())
    with pytest.raises(HeadMovedError, match="a store lost data"):
        await b.pull()
    assert memory_rows(b.database) == rows


@pytest.mark.parametrize("damage", ["flipped", "truncated", "missing"])
async def test_a_damaged_object_is_one_clear_error_and_changes_nothing(make_box: MakeBox, damage: str) -> None:
    a, b = given_memory(make_box("a")), make_box("b")
    await a.push()
    await b.pull()
    before = memory_rows(b.database), b.lane.mirror.position()
    write(str(a.database), 4, "a")
    await a.push()
    stored = (await head_of(a.lane)).record.object
    assert stored is not None
    body = bytearray(await a.lane.store.get(stored.key, deadline=soon()))
    await a.lane.store.delete(stored.key, deadline=soon())
    if damage == "flipped":
        body[len(body) // 2] ^= 1
    if damage != "missing":
        kept = bytes(body[: len(body) // 2] if damage == "truncated" else body)
        await a.lane.store.put(stored.key, kept, deadline=soon())
    with pytest.raises((CorruptObjectError, StoreUnavailableError) if damage != "missing" else Exception):
        await b.pull()
    assert (memory_rows(b.database), b.lane.mirror.position()) == before


async def test_a_record_of_a_newer_format_is_refused(make_box: MakeBox) -> None:
    a, b = given_memory(make_box("a")), make_box("b")
    await a.push()
    record = (await head_of(a.lane)).record
    newer = msgspec.structs.replace(record, format=3)
    await a.lane.heads.put(a.lane.project, Head(record=newer), deadline=soon())
    with pytest.raises(UnsupportedFormatError, match="format 3"):
        await b.pull()


async def test_a_project_of_the_unreleased_format_is_refused_and_the_remedy_helps(make_box: MakeBox) -> None:
    a, b = given_memory(make_box("a")), make_box("b")
    await a.push()
    record = (await head_of(a.lane)).record
    older = {**msgspec.json.decode(encode(record)), "format": 1, "page_size": 4096, "page_count": 20}
    key = layout.commit(a.lane.project, record.seq)
    await a.lane.store.put(key, msgspec.json.encode(older), if_absent=False, deadline=soon())
    await a.lane.heads.put(a.lane.project, Head(record=msgspec.structs.replace(record, format=1)), deadline=soon())

    for act in (a.push, b.pull):
        with pytest.raises(UnsupportedFormatError, match="format 1") as refused:
            await act()
        assert f"projects/{a.lane.project}/" in refused.value.remedy
        assert f"nats kv del {buckets.HEADS.name} {a.lane.project}" in refused.value.remedy
    async for info in a.lane.store.list(f"projects/{a.lane.project}/", deadline=soon()):
        await a.lane.store.delete(info.key, deadline=soon())
    await a.lane.heads.delete(a.lane.project, deadline=soon())

    assert (await a.push()).kind is SnapshotKind.FULL
    await b.pull()
    assert memory_rows(b.database) == memory_rows(a.database)


async def test_a_delta_of_a_row_that_was_damaged_in_the_mirror_is_repaired_as_the_messages_say(
    make_box: MakeBox,
) -> None:
    a, b = given_memory(make_box("a")), make_box("b")
    await a.push()
    await b.pull()
    before = memory_rows(b.database)
    mirror = a.lane.mirror.path()
    assert mirror is not None
    execute(mirror, "PRAGMA foreign_keys = OFF; UPDATE observations SET title = 'damaged' WHERE rowid = 7")
    execute(a.database, "UPDATE observations SET title = 'edited' WHERE id = 7")
    await a.push()

    # Which row it takes the place of nobody else knows: nothing is merged.
    with pytest.raises(CorruptObjectError) as refused:
        await b.pull()
    assert "`membridge recover --from mirror`" in refused.value.remedy
    assert memory_rows(b.database) == before
    with pytest.raises(CorruptObjectError) as damaged:
        await recovered(a, RecoverySource.MIRROR)
    assert "`membridge recover --from database` here" in damaged.value.remedy
    await recovered(a, RecoverySource.DATABASE)
    await b.pull()
    assert memory_rows(b.database) == memory_rows(a.database)


async def test_a_mirror_that_is_damaged_is_not_sent_and_the_next_push_makes_a_new_one(make_box: MakeBox) -> None:
    a, b = given_memory(make_box("a", chain=ChainPolicy(max_deltas=0))), make_box("b")
    await a.push()
    mirror = a.lane.mirror.path()
    assert mirror is not None
    execute(mirror, "PRAGMA foreign_keys = OFF; DELETE FROM observations WHERE rowid = 7")
    write(str(a.database), 2, "a")

    with pytest.raises(CorruptObjectError, match="was damaged and is gone") as refused:
        await a.push()
    assert "run the command again" in refused.value.remedy
    assert (await a.push()).outcome is PushOutcome.COMMITTED
    await b.pull()
    assert memory_rows(b.database) == memory_rows(a.database)


async def recovered(box: Box, source: RecoverySource) -> None:
    """Recover on a machine, as `membridge recover` does."""
    request = RecoverRequest(source=source)
    await recover.recover(box.lane, request, epoch=2, progress=ProgressTracker(), deadline=soon())


async def test_a_mirror_that_was_damaged_takes_a_full_and_merges(make_box: MakeBox) -> None:
    a, b = given_memory(make_box("a")), make_box("b")
    await a.push()
    await b.pull()
    mirror = b.lane.mirror.path()
    assert mirror is not None
    with closing(sqlite3.connect(mirror)) as database, database:
        database.execute("DELETE FROM observations WHERE rowid < 100")
    write(str(a.database), 2, "a")
    await a.push()
    await b.pull()
    assert memory_rows(b.database) == memory_rows(a.database)


def _head(known: heads.KnownHead) -> Head:
    return Head(record=known.record)
