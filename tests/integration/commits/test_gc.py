"""Garbage collection: what is kept stays restorable whatever happens, and what is not kept goes in the end."""

import asyncio
import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from membridge.claudemem.memory import memory_rows
from membridge.commits import gc, heads, history, layout, pruned, tags, verify
from membridge.commits.chain import ChainPolicy, Position
from membridge.commits.progress import ProgressTracker
from membridge.commits.retention import SnapshotPolicy
from membridge.errors import HeadMovedError, RefusedError
from membridge.snapshot import push
from membridge.snapshot.lane import Lane
from membridge.testing.writer import write
from schemas.commits import GcReply, VerifyRequest
from schemas.identity import Seq
from schemas.snapshot import PushOutcome
from tests.faults.store import FaultyStore, KilledError
from tests.fixtures.lanes import Box, MakeBox, soon

SAMPLE = Path(__file__).parents[2] / "data" / "claude-mem-13.25.3.db"
#: Chains of a full snapshot and two deltas; only the newest state is kept.
CHAIN = ChainPolicy(max_deltas=2, max_percent=10_000)
ONE = SnapshotPolicy(last=1, hourly=0, daily=0, weekly=0)


def keeping(box: Box, policy: SnapshotPolicy = ONE, store: FaultyStore | None = None) -> Lane:
    return replace(box.lane, retention=policy, store=store or box.lane.store)


async def collect(lane: Lane, *, dry_run: bool = False) -> GcReply:
    return await gc.collect(lane, dry_run=dry_run, progress=ProgressTracker(), deadline=soon())


async def learn(box: Box, times: int, label: str = "round") -> None:
    for number in range(times):
        write(str(box.database), 1, f"{label}-{number}")
        assert (await box.push()).outcome is PushOutcome.COMMITTED


async def with_history(make_box: MakeBox, commits: int = 7) -> Box:
    """Give a node with 1 full, 2, 3, 4 full, 5, 6, 7 full, and so on."""
    box = make_box("a", chain=CHAIN)
    shutil.copyfile(SAMPLE, box.database)
    await box.push()
    await learn(box, commits - 1)
    return box


async def keys(box: Box) -> set[str]:
    prefix = f"projects/{box.lane.project}/"
    listed = {info.key.removeprefix(prefix) async for info in box.lane.store.list(prefix, deadline=soon())}
    return {key for key in listed if not key.startswith("ancestry/")}


async def seqs(box: Box) -> list[Seq]:
    return await heads.seqs(box.lane, deadline=soon())


async def check_sound(box: Box) -> None:
    reply = await verify.verify(box.lane, VerifyRequest(), progress=ProgressTracker(), deadline=soon())
    assert reply.findings == []
    assert reply.restored == reply.records


async def test_what_is_not_kept_goes_with_its_objects_and_a_dry_run_only_says_so(make_box: MakeBox) -> None:
    box = await with_history(make_box, 8)
    before = await keys(box)
    said = await collect(keeping(box), dry_run=True)
    assert (said.dry_run, said.seqs, said.kept) == (True, [1, 2, 3, 4, 5, 6], 1)
    assert await keys(box) == before
    done = await collect(keeping(box))
    assert (done.seqs, done.freed_bytes) == (said.seqs, said.freed_bytes)
    assert await seqs(box) == [7, 8]
    assert len(await keys(box)) == 4
    await check_sound(box)
    assert (await collect(keeping(box))).snapshots == 0


async def test_what_a_tag_names_stays_with_what_it_is_restored_from(make_box: MakeBox) -> None:
    box = await with_history(make_box, 8)
    record = await history.resolve(box.lane, "2", deadline=soon())
    assert record is not None
    await tags.put(box.lane, "keep-me", record, move=False, deadline=soon())
    await collect(keeping(box))
    assert await seqs(box) == [1, 2, 7, 8]
    await check_sound(box)
    await tags.delete(box.lane, "keep-me", deadline=soon())
    await collect(keeping(box))
    assert await seqs(box) == [7, 8]


async def test_killed_between_any_two_writes_everything_that_is_left_can_be_restored(
    make_box: MakeBox, monkeypatch: pytest.MonkeyPatch
) -> None:
    # One after the other, so that the first write of a run is over when the second one kills it.
    monkeypatch.setattr(gc, "DELETERS", 1)
    box = await with_history(make_box)
    kills = 0
    while True:
        # Each run gets one write further than the one before, and is then killed.
        store = FaultyStore(box.lane.store, die_at=2)
        try:
            await collect(keeping(box, store=store))
        except KilledError:
            kills += 1
            await check_sound(box)
            continue
        break
    # Six commits: what is remembered, six records, and each one's object in a run of its own.
    assert kills >= 6
    assert await seqs(box) == [7]
    assert len(await keys(box)) == 2


async def test_a_push_that_runs_meanwhile_is_not_harmed(make_box: MakeBox) -> None:
    box = await with_history(make_box, 6)
    write(str(box.database), 1, "meanwhile")
    for hold_at in (1, 2):  # before the upload, and between the upload and the commit record
        write(str(box.database), 1, f"meanwhile-{hold_at}")
        store = FaultyStore(box.lane.store, hold_at=hold_at)
        pushing = replace(box.lane, store=store)
        async with asyncio.TaskGroup() as group:
            running = group.create_task(
                push.push(pushing, epoch=1, allow_shrink=False, progress=ProgressTracker(), deadline=soon())
            )
            await store.held.wait()
            await collect(keeping(box))
            store.open.set()
        assert running.result().outcome is PushOutcome.COMMITTED
        await check_sound(box)


async def test_an_abandoned_upload_goes_once_its_seq_is_taken_and_never_before(make_box: MakeBox) -> None:
    box = await with_history(make_box, 2)
    write(str(box.database), 1, "abandoned")
    store = FaultyStore(box.lane.store, die_at=2)
    with pytest.raises(KilledError):
        await push.push(
            replace(box.lane, store=store), epoch=1, allow_shrink=False, progress=ProgressTracker(), deadline=soon()
        )
    abandoned = store.calls[0].removeprefix("upload ")
    assert (await collect(keeping(box, SnapshotPolicy()))).orphans == 0
    assert await box.lane.store.head(abandoned, deadline=soon()) is not None
    await learn(box, 1, "next")
    assert (await collect(keeping(box, SnapshotPolicy()))).orphans == 1
    assert await box.lane.store.head(abandoned, deadline=soon()) is None
    await check_sound(box)


async def test_a_push_that_slept_through_retention_leaves_nothing_in_the_past(make_box: MakeBox) -> None:
    box, late = await with_history(make_box, 2), make_box("late", chain=CHAIN)
    await late.pull()
    write(str(late.database), 1, "late")
    store = FaultyStore(box.lane.store, hold_at=2)
    async with asyncio.TaskGroup() as group:

        async def sleeping_push() -> None:
            with pytest.raises(HeadMovedError):
                await push.push(
                    replace(late.lane, store=store),
                    epoch=1,
                    allow_shrink=False,
                    progress=ProgressTracker(),
                    deadline=soon(),
                )

        group.create_task(sleeping_push())
        await store.held.wait()
        await learn(box, 6, "meanwhile")
        await collect(keeping(box))
        store.open.set()
    # It was past its last look at the head, so its record of seq 3 came into a place that was free again.
    assert 3 in await seqs(box)
    await collect(keeping(box))
    assert 3 not in await seqs(box)
    await check_sound(box)


async def test_nothing_is_deleted_where_nobody_can_say_what_is_needed(make_box: MakeBox) -> None:
    box = await with_history(make_box, 8)
    record = await box.lane.store.get(layout.commit(box.lane.project, 7), deadline=soon())
    await box.lane.store.delete(layout.commit(box.lane.project, 7), deadline=soon())
    before = await keys(box)
    with pytest.raises(RefusedError, match="builds on snapshot 7, which is damaged"):
        await collect(keeping(box))
    await box.lane.store.put(layout.commit(box.lane.project, 7), record, deadline=soon())
    await box.lane.store.put(layout.tag(box.lane.project, "x"), b"{", deadline=soon())
    with pytest.raises(Exception, match="is not a valid tag"):
        await collect(keeping(box))
    assert before < await keys(box)


async def test_a_node_that_was_away_while_its_commit_was_deleted_still_hears_of_deletions(make_box: MakeBox) -> None:
    box, away = await with_history(make_box, 2), make_box("away", chain=CHAIN)
    await away.pull()
    write(str(away.database), 2, "unsynced")
    with closing(sqlite3.connect(box.database)) as database, database:
        database.execute("DELETE FROM observations WHERE id <= 5")
    await learn(box, 6, "later")
    await collect(keeping(box))
    assert 2 not in await seqs(box)
    pulled = await away.pull()
    assert (pulled.deleted, pulled.unsynced, pulled.conflicts) == (5, 3, 0)
    lacking = {table: rows - memory_rows(away.database)[table] for table, rows in memory_rows(box.database).items()}
    assert not any(lacking.values())


@pytest.mark.parametrize("damage", ["other history", "damaged mirror", "nothing remembered"])
async def test_a_mirror_that_is_no_proven_ancestor_deletes_nothing(make_box: MakeBox, damage: str) -> None:
    box, away = await with_history(make_box, 2), make_box("away", chain=CHAIN)
    await away.pull()
    with closing(sqlite3.connect(box.database)) as database, database:
        database.execute("DELETE FROM observations WHERE id <= 5")
    await learn(box, 6, "later")
    await collect(keeping(box))
    position = away.lane.mirror.position()
    mirror = away.lane.mirror.path()
    assert position is not None
    assert mirror is not None
    if damage == "other history":
        await box.lane.store.delete(layout.pruned(box.lane.project, 0), deadline=soon())
        record = await heads.fetch_record(box.lane, 8, deadline=soon())
        await pruned.remember(box.lane, {2: msgspec.structs.replace(record, seq=2, sha256="e" * 64)}, deadline=soon())
    elif damage == "nothing remembered":
        await box.lane.store.delete(layout.pruned(box.lane.project, 0), deadline=soon())
    else:
        with closing(sqlite3.connect(mirror)) as database, database:
            database.execute("DELETE FROM session_summaries")
    assert (await away.pull()).deleted == 0


async def test_what_is_remembered_adds_up(make_box: MakeBox) -> None:
    box = await with_history(make_box, 3)
    records = await heads.fetch_records(box.lane, [1, 2, 3], deadline=soon())
    far = {pruned.BLOCK + 1: msgspec.structs.replace(records[3], seq=pruned.BLOCK + 1)}
    for part in ({1: records[1]}, {1: records[1], 2: records[2]}, far):
        await pruned.remember(box.lane, part, deadline=soon())
    found = await pruned.read(box.lane, range(2 * pruned.BLOCK), deadline=soon())
    assert sorted(found) == [1, 2, pruned.BLOCK + 1]
    assert found[2] == Position(2, records[2].epoch, records[2].sha256)
