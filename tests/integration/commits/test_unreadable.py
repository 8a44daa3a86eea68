"""Commit records that cannot be read: beyond the head they are stepped over, the head's own is written anew."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from membridge.claudemem.memory import memory_rows
from membridge.commits import gc, heads, layout, verify
from membridge.commits.heads import KnownHead
from membridge.commits.progress import ProgressTracker
from membridge.commits.retention import SnapshotPolicy
from membridge.errors import ObjectMissingError, ObjectNotEncryptedError, RefusedError
from membridge.objectstore.encryption.guard import backend
from membridge.objectstore.encryption.keys import KeySource
from membridge.objectstore.encryption.store import EncryptedStore
from membridge.objectstore.jetstream import JetStreamStore
from membridge.snapshot import push, recover
from membridge.snapshot.lane import Lane
from membridge.testing.writer import write
from schemas.commits import RecoverRequest, RecoverySource, VerifyRequest
from schemas.identity import Seq
from schemas.node import Finding
from schemas.snapshot import Head, PushOutcome, SnapshotKind, SnapshotRecord
from schemas.wire import decode, encode
from tests.fixtures.databases import titles
from tests.fixtures.lanes import Box, MakeBox, soon

ON_ONE_STORE = pytest.mark.parametrize("lane_store", ["jetstream"], indirect=True)
SAMPLE = Path(__file__).parents[2] / "data" / "claude-mem-13.25.3.db"


async def with_history(make_box: MakeBox) -> tuple[Box, Box]:
    """Give two nodes at seq 2; the first has learned something that no snapshot has."""
    a, b = make_box("a"), make_box("b")
    shutil.copyfile(SAMPLE, a.database)
    await a.push()
    write(str(a.database), 1, "second")
    await a.push()
    await b.pull()
    write(str(a.database), 1, "third")
    return a, b


async def known_head(lane: Lane) -> KnownHead:
    known = await heads.settle(lane, deadline=soon())
    assert known is not None
    return known


async def damage(box: Box, seq: Seq) -> None:
    """Leave of a commit record what a killed put or a broken disk leaves; make one where there is none."""
    key, store = layout.commit(box.lane.project, seq), backend(box.lane.store)
    await box.lane.store.put(key, b"{", if_absent=False, deadline=soon())
    if isinstance(store, JetStreamStore):
        async for _, meta in store.metas(deadline=soon()):
            if meta.name == key:
                await store.purge(store.chunk_subject(meta.nuid), deadline=soon())


async def recovered(box: Box, source: RecoverySource, epoch: int) -> Seq:
    return (
        await recover.recover(
            box.lane, RecoverRequest(source=source), epoch=epoch, progress=ProgressTracker(), deadline=soon()
        )
    ).seq


async def collected(box: Box) -> None:
    await gc.collect(box.lane, dry_run=False, progress=ProgressTracker(), deadline=soon())


async def findings(box: Box) -> list[Finding]:
    reply = await verify.verify(box.lane, VerifyRequest(), progress=ProgressTracker(), deadline=soon())
    return [found.finding for found in reply.findings]


@ON_ONE_STORE
async def test_one_beyond_the_head_is_stepped_over_by_everything_that_commits(make_box: MakeBox) -> None:
    a, b = await with_history(make_box)
    await damage(a, 3)
    assert await findings(a) == [Finding.WARN]
    # A new primary's first act, then a push, each right behind one that cannot be read.
    moved = await push.commit_epoch(b.lane, epoch=2, deadline=soon())
    assert moved is not None
    assert (moved.record.seq, moved.record.parent_seq) == (4, 2)
    await damage(a, 5)
    pushed = await a.push(epoch=2)
    assert (pushed.seq, pushed.kind) == (6, SnapshotKind.DELTA)
    # What was killed between its record and the head is found behind the gap.
    known = await known_head(a.lane)
    before = await heads.fetch_record(a.lane, 4, deadline=soon())
    await a.lane.heads.put(a.lane.project, Head(record=before), deadline=soon())
    assert (await known_head(b.lane)).record == known.record
    new = make_box("new")
    for box in (b, new):
        await box.pull()
        assert memory_rows(box.database) == memory_rows(a.database)
    assert set(await findings(a)) == {Finding.WARN}
    await collected(a)
    assert await heads.seqs(a.lane, deadline=soon()) == [1, 2, 4, 6]
    assert await findings(a) == []


@ON_ONE_STORE
@pytest.mark.parametrize("source", list(RecoverySource))
async def test_recovery_from_every_source_gets_over_one_beyond_the_head(
    make_box: MakeBox, source: RecoverySource
) -> None:
    a, b = await with_history(make_box)
    await damage(a, 3)
    assert await recovered(a, source, 2) == (2 if source is RecoverySource.STORE else 4)
    await a.push(epoch=2)
    await b.pull()
    assert memory_rows(a.database) == memory_rows(b.database)
    await collected(a)


@ON_ONE_STORE
async def test_an_older_one_stays_with_its_object_and_blocks_no_collection(make_box: MakeBox) -> None:
    a, _ = await with_history(make_box)
    await a.push()
    await damage(a, 2)
    # The head's chain has the hole: nothing goes before a whole snapshot took its place.
    with pytest.raises(RefusedError, match="builds on snapshot 2, which is damaged"):
        await collected(a)
    assert await recovered(a, RecoverySource.MIRROR, 2) == 4
    await collected(a)
    kept = [info.key async for info in a.lane.store.list(layout.snapshots(a.lane.project), deadline=soon())]
    assert [layout.seq_of_snapshot(key) for key in kept] == [1, 2, 3, 4]
    policy = SnapshotPolicy(last=1, hourly=0, daily=0, weekly=0)
    await collected(replace(a, lane=replace(a.lane, retention=policy)))
    assert await heads.seqs(a.lane, deadline=soon()) == [4]
    assert await findings(a) == []


async def test_that_of_the_head_is_written_anew_and_recovered_from_a_mirror(make_box: MakeBox) -> None:
    a, b = await with_history(make_box)
    record = (await known_head(a.lane)).record
    await damage(a, 2)
    assert Finding.FAIL in await findings(a)
    assert await recovered(a, RecoverySource.MIRROR, 2) == 3
    assert await heads.fetch_record(a.lane, 2, deadline=soon()) == record
    await damage(a, 3)
    assert (await a.push(epoch=2)).seq == 4
    await b.pull()
    assert memory_rows(b.database) == memory_rows(a.database)
    assert await findings(a) == []


@ON_ONE_STORE
async def test_a_lost_one_of_the_head_is_written_anew_before_a_new_primary_builds_on_it(make_box: MakeBox) -> None:
    a, b = await with_history(make_box)
    new = make_box("new")
    # That of a snapshot, then that of an empty commit, which has no object of its own.
    for epoch in (2, 3):
        record = (await known_head(a.lane)).record
        await a.lane.store.delete(layout.commit(a.lane.project, record.seq), deadline=soon())
        await push.commit_epoch(b.lane, epoch=epoch, deadline=soon())
        assert await heads.fetch_record(a.lane, record.seq, deadline=soon()) == record
    assert (await known_head(a.lane)).record.kind is SnapshotKind.EMPTY
    for box in (b, new):
        await box.pull()
    assert memory_rows(new.database) == memory_rows(b.database)
    assert await findings(a) == []


@ON_ONE_STORE
async def test_a_head_that_is_lost_with_its_object_gets_a_full_snapshot_from_a_node_that_has_it(
    make_box: MakeBox,
) -> None:
    a, b = await with_history(make_box)
    await a.push()
    record = (await known_head(a.lane)).record
    assert record.object is not None
    for key in (layout.commit(a.lane.project, record.seq), record.object.key):
        await a.lane.store.delete(key, deadline=soon())
    known = await push.commit_epoch(a.lane, epoch=2, deadline=soon())
    assert known is not None
    assert (known.record, known.stored) == (record, False)
    # What lacks rows of that head must not become the memory of those that have them.
    with pytest.raises(ObjectMissingError, match="has lost snapshot 3"):
        await b.push(epoch=2)
    pushed = await a.push(epoch=2)
    assert (pushed.outcome, pushed.kind, pushed.epoch) == (PushOutcome.COMMITTED, SnapshotKind.FULL, 2)
    await b.pull()
    assert memory_rows(b.database) == memory_rows(a.database)
    assert await findings(a) == []


@ON_ONE_STORE
async def test_with_the_heads_entry_lost_too_the_newest_that_can_be_read_counts_and_no_row_is_lost(
    make_box: MakeBox,
) -> None:
    a, b = await with_history(make_box)
    await a.push()
    expected = memory_rows(a.database)
    write(str(b.database), 1, "of b")
    await damage(a, 3)
    await a.lane.heads.delete(a.lane.project, deadline=soon())
    known = await known_head(b.lane)
    assert (known.record.seq, known.next_seq) == (2, 4)
    assert await recovered(a, RecoverySource.MIRROR, 2) == 4
    await b.push(epoch=2)
    await a.pull()
    rows = memory_rows(a.database)
    assert rows == memory_rows(b.database)
    assert rows["observations"] > expected["observations"]
    assert "of b learned fact 0" in titles(a.database)


@ON_ONE_STORE
async def test_with_every_record_damaged_the_numbers_go_on(make_box: MakeBox) -> None:
    a, b = await with_history(make_box)
    for seq in (1, 2):
        await damage(a, seq)
    await a.lane.heads.delete(a.lane.project, deadline=soon())
    assert await heads.read(a.lane, deadline=soon()) is None
    fresh = make_box("fresh")
    shutil.copyfile(a.database, fresh.database)
    assert (await fresh.push(epoch=2)).seq == 3
    assert (await b.pull()).deleted == 0
    assert memory_rows(a.database) == memory_rows(b.database)


@ON_ONE_STORE
async def test_one_that_lost_the_race_to_a_smaller_number_is_stepped_over(make_box: MakeBox) -> None:
    a, b = await with_history(make_box)
    await a.push()
    lost = await heads.fetch_record(a.lane, 3, deadline=soon())
    lost = decode(encode(lost).replace(b'"seq":3', b'"seq":4', 1), SnapshotRecord)
    await a.lane.store.put(layout.commit(a.lane.project, 4), encode(lost), deadline=soon())
    write(str(a.database), 1, "fourth")
    assert (await a.push()).seq == 5
    await b.pull()
    assert memory_rows(a.database) == memory_rows(b.database)


@ON_ONE_STORE
async def test_a_record_from_before_encryption_is_not_taken_for_damaged(make_box: MakeBox) -> None:
    a, _ = await with_history(make_box)
    second = await known_head(a.lane)
    await a.push()
    key = EncryptedStore(a.lane.store, KeySource(passphrase="of this test"))
    sealed = replace(make_box("sealed").lane, store=key)
    kept = [await a.lane.store.get(layout.commit(a.lane.project, seq), deadline=soon()) for seq in (2, 3)]
    # The head's own, then, with KV one behind, also the one beyond it.
    for _ in range(2):
        with pytest.raises(ObjectNotEncryptedError):
            await heads.settle(sealed, deadline=soon())
        await a.lane.heads.put(a.lane.project, Head(record=second.record), deadline=soon())
    assert kept == [await a.lane.store.get(layout.commit(a.lane.project, seq), deadline=soon()) for seq in (2, 3)]
    assert (await known_head(a.lane)).record.seq == 3


@ON_ONE_STORE
async def test_a_mirror_that_is_behind_does_not_recover_what_is_only_unreadable(make_box: MakeBox) -> None:
    a, b = await with_history(make_box)
    await a.push()
    await damage(a, 3)
    with pytest.raises(RefusedError, match="has not pulled snapshot 3"):
        await recovered(b, RecoverySource.MIRROR, 2)
