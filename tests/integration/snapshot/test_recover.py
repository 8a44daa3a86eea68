"""Recovery: one store wiped, or both; a head again, and no row lost on any machine."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from membridge.claudemem.memory import memory_rows
from membridge.commits import heads, layout, verify
from membridge.commits.progress import ProgressTracker
from membridge.errors import (
    CorruptObjectError,
    HeadMovedError,
    MembridgeError,
    NotFoundError,
    RefusedError,
    ShrinkRefusedError,
)
from membridge.snapshot import recover
from membridge.testing.writer import write
from schemas.commits import RecoverReply, RecoverRequest, RecoverySource, VerifyRequest
from schemas.identity import Seq
from schemas.snapshot import Head, SnapshotKind
from tests.fixtures.lanes import Box, MakeBox, soon

SAMPLE = Path(__file__).parents[2] / "data" / "claude-mem-13.25.3.db"
STORE, MIRROR, DATABASE = RecoverySource.STORE, RecoverySource.MIRROR, RecoverySource.DATABASE


async def with_machines(make_box: MakeBox) -> tuple[Box, Box]:
    """Give two nodes at seq 3, each with a row of its own that no snapshot has."""
    a, b = make_box("a"), make_box("b")
    shutil.copyfile(SAMPLE, a.database)
    await a.push()
    for label in ("second", "third"):
        write(str(a.database), 2, label)
        await a.push()
    await b.pull()
    write(str(a.database), 1, "only-a")
    write(str(b.database), 1, "only-b")
    return a, b


async def wipe(box: Box, part: str = "", *, newer_than: Seq = 0) -> None:
    """Delete the project's objects whose key has `part`, of commits after a seq."""
    prefix = f"projects/{box.lane.project}/"
    for info in [info async for info in box.lane.store.list(prefix, deadline=soon())]:
        seq = layout.seq_of_commit(info.key) or layout.seq_of_snapshot(info.key) or newer_than + 1
        if part in info.key and seq > newer_than:
            await box.lane.store.delete(info.key, deadline=soon())


async def recovered(box: Box, source: RecoverySource, epoch: int | None = 2, *, preview: bool = False) -> RecoverReply:
    request = RecoverRequest(source=source, preview=preview)
    return await recover.recover(box.lane, request, epoch=epoch, progress=ProgressTracker(), deadline=soon())


async def check_sound(box: Box) -> None:
    assert (await verify.verify(box.lane, VerifyRequest(), progress=ProgressTracker(), deadline=soon())).findings == []


def lost(before: dict[str, set[str]], box: Box) -> dict[str, set[str]]:
    now = memory_rows(box.database)
    return {table: rows - now[table] for table, rows in before.items() if rows - now[table]}


async def test_a_head_that_nats_lost_is_that_of_the_object_store(make_box: MakeBox) -> None:
    a, b = await with_machines(make_box)
    assert not (await recovered(a, STORE)).rebuilt
    await a.lane.heads.delete(a.lane.project, deadline=soon())
    reply = await recovered(b, STORE)
    assert (reply.rebuilt, reply.seq, reply.committed) == (True, 3, False)
    await check_sound(a)
    assert (await a.push(epoch=2)).seq == 4


@pytest.mark.parametrize("source", [MIRROR, DATABASE])
async def test_where_nothing_is_lost_nothing_is_committed(make_box: MakeBox, source: RecoverySource) -> None:
    a, b = await with_machines(make_box)
    for preview in (True, False):
        with pytest.raises(RefusedError, match="nothing is lost: the object store has all of snapshot 3, the newest"):
            await recovered(a, source, preview=preview)
    await a.lane.heads.delete(a.lane.project, deadline=soon())
    with pytest.raises(RefusedError) as refused:
        await recovered(a, source)
    assert "--from store" in (refused.value.remedy or "")
    assert (await recovered(a, STORE)).rebuilt
    # A preview says what is lost and commits nothing.
    await wipe(a, "/snapshots/", newer_than=2)
    seen = await recovered(a, source, preview=True)
    assert (seen.committed, seen.seq) == (False, 3)
    assert "snapshot 3" in seen.lost
    known = await heads.read(b.lane, deadline=soon())
    assert known is not None
    assert known.record.seq == 3
    assert (await recovered(a, source)).seq == 4


@pytest.mark.parametrize("source", [MIRROR, DATABASE])
async def test_a_lost_object_store_gets_a_whole_snapshot_and_no_machine_loses_a_row(
    make_box: MakeBox, source: RecoverySource
) -> None:
    a, b = await with_machines(make_box)
    before = memory_rows(a.database), memory_rows(b.database)
    await wipe(a)
    with pytest.raises(RefusedError, match="has lost snapshot 3"):
        await recovered(a, STORE)
    reply = await recovered(a, source)
    assert (reply.seq, reply.epoch, reply.committed) == (4, 2, True)
    assert lost(before[0], a) == {}
    await check_sound(a)
    await b.pull()
    assert lost(before[1], b) == {}
    await a.push(epoch=2)
    new = make_box("new")
    await new.pull()
    assert lost(before[0], new) == {}


@pytest.mark.parametrize("source", [MIRROR, DATABASE])
async def test_with_both_lost_the_numbers_go_on(make_box: MakeBox, source: RecoverySource) -> None:
    a, b = await with_machines(make_box)
    before = memory_rows(b.database)
    await wipe(a)
    await a.lane.heads.delete(a.lane.project, deadline=soon())
    with pytest.raises(NotFoundError, match="no snapshot"):
        await recovered(a, STORE)
    assert (await recovered(a, source, None)).seq == 4
    head = await heads.read(a.lane, deadline=soon())
    assert head is not None
    assert (head.record.kind, head.record.epoch) == (SnapshotKind.FULL, 2)
    await check_sound(a)
    assert (await b.pull()).deleted == 0
    assert lost(before, b) == {}


async def test_an_object_missing_in_the_heads_chain_is_healed(make_box: MakeBox) -> None:
    a, b = await with_machines(make_box)
    await wipe(a, "/snapshots/", newer_than=1)
    new = make_box("new")
    with pytest.raises(MembridgeError):
        await new.pull()
    await recovered(a, MIRROR)
    await new.pull()
    assert memory_rows(new.database) == {
        table: {row for row in rows if b"only-a" not in row} for table, rows in memory_rows(a.database).items()
    }
    assert (await b.pull()).deleted == 0


async def test_a_node_that_is_behind_does_not_recover(make_box: MakeBox) -> None:
    a, b = await with_machines(make_box)
    await a.push()
    await wipe(a, "/snapshots/", newer_than=3)
    with pytest.raises(RefusedError, match="has not pulled snapshot 4"):
        await recovered(b, MIRROR)
    # Where the records that b has not seen are lost, nobody takes its state for a deletion.
    await wipe(a, "/commits/", newer_than=3)
    assert (await recovered(b, MIRROR)).seq > 4
    late = make_box("late")
    await wipe(a, "/snapshots/", newer_than=4)
    with pytest.raises(RefusedError, match="has not pulled snapshot 5"):
        await recovered(late, DATABASE, 9)


async def test_a_database_that_lost_its_rows_does_not_become_the_head(make_box: MakeBox) -> None:
    a, _ = await with_machines(make_box)
    await wipe(a, "/snapshots/")
    with closing(sqlite3.connect(a.database)) as database, database:
        database.execute("DELETE FROM observations")
    with pytest.raises(ShrinkRefusedError):
        await recovered(a, DATABASE)
    assert (await recovered(a, MIRROR)).committed


async def test_a_damaged_mirror_recovers_nothing(make_box: MakeBox) -> None:
    a, _ = await with_machines(make_box)
    await wipe(a, "/snapshots/")
    mirror = a.lane.mirror.path()
    assert mirror is not None
    with closing(sqlite3.connect(mirror)) as database, database:
        database.execute("DELETE FROM observations WHERE rowid < 100")
    with pytest.raises(CorruptObjectError, match="mirror"):
        await recovered(a, MIRROR)
    assert (await recovered(a, DATABASE)).committed


async def test_stores_that_are_those_of_an_older_backup_are_recovered_from_the_mirror_that_saw_more(
    make_box: MakeBox,
) -> None:
    a, b = await with_machines(make_box)
    before = memory_rows(b.database)
    second = await heads.fetch_record(a.lane, 2, deadline=soon())
    await wipe(a, newer_than=2)
    await a.lane.heads.put(a.lane.project, Head(record=second), deadline=soon())
    with pytest.raises(HeadMovedError) as refused:
        await a.push()
    assert "recover --from mirror" in (refused.value.remedy or "")
    assert (await recovered(a, MIRROR, 1)).seq == 4
    await a.push()
    await b.pull()
    assert lost(before, b) == {}
    await b.push()
    await a.pull()
    assert memory_rows(a.database) == memory_rows(b.database)


@pytest.mark.parametrize("lane_store", ["jetstream"], indirect=True)
@pytest.mark.parametrize("heads_too", [False, True], ids=["the store", "both"])
async def test_a_mirror_that_was_forgotten_is_still_recovered_from(make_box: MakeBox, heads_too: bool) -> None:
    a, b = await with_machines(make_box)
    before, others = memory_rows(a.database), memory_rows(b.database)
    # What a restore of a backup does before it overwrites: here it overwrote, and the store lost the head after.
    await a.push()
    await b.pull()
    with closing(sqlite3.connect(a.database)) as database, database:
        database.execute("DELETE FROM observations WHERE id > 10")
    a.lane.mirror.forget()
    await wipe(a, "" if heads_too else "/snapshots/")
    if heads_too:
        await a.lane.heads.delete(a.lane.project, deadline=soon())
    with pytest.raises(MembridgeError):
        await a.pull()
    if not heads_too:
        with pytest.raises(RefusedError, match="has not pulled snapshot 4"):
            await recovered(a, DATABASE)
    assert (await recovered(a, MIRROR, preview=True)).seq == 4
    reply = await recovered(a, MIRROR)
    assert (reply.seq, reply.committed) == (5, True)
    # The live database lacks what the mirror has: nothing of that counts as deleted, here or there.
    assert a.lane.mirror.position() is None
    assert (await a.pull()).deleted == 0
    assert lost(before, a) == {}
    await a.push(epoch=2)
    assert (await b.pull()).deleted == 0
    assert lost(others, b) == lost(before, b) == {}
    new = make_box("new")
    await new.pull()
    assert lost(before, new) == {}
