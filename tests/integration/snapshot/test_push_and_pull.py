"""Push and pull between two machines, on both object stores: nothing is lost, and nothing is sent twice."""

import asyncio
import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from membridge.aio.deadline import Deadline
from membridge.claudemem.memory import memory_rows
from membridge.commits.chain import ChainPolicy
from membridge.commits.layout import legacy_database
from membridge.errors import MembridgeError, NotFoundError, ShrinkRefusedError
from membridge.objectstore.protocol import Progress
from membridge.snapshot import backups
from membridge.testing.writer import write
from schemas.events import SnapshotCommitted
from schemas.snapshot import PullOutcome, PushOutcome, SnapshotKind
from tests.faults.store import FaultyStore
from tests.fixtures.lanes import Box, MakeBox, soon

SAMPLE = Path(__file__).parents[2] / "data" / "claude-mem-13.25.3.db"
OLDER = Path(__file__).parents[2] / "data" / "claude-mem-10.6.3.db"


def given_memory(box: Box, sample: Path = SAMPLE) -> Box:
    shutil.copyfile(sample, box.database)
    return box


def titles(box: Box) -> set[str]:
    with closing(sqlite3.connect(box.database)) as database:
        return {row[0] for row in database.execute("SELECT title FROM observations")}


async def test_a_first_push_is_a_full_snapshot_and_a_new_machine_gets_it_all(make_box: MakeBox) -> None:
    a, b = given_memory(make_box("a")), make_box("b")
    pushed = await a.push()
    assert (pushed.outcome, pushed.seq, pushed.kind) == (PushOutcome.COMMITTED, 1, SnapshotKind.FULL)
    assert [type(event) for event in a.events] == [SnapshotCommitted]

    pulled = await b.pull()
    assert (pulled.outcome, pulled.seq) == (PullOutcome.INSTALLED, 1)
    assert memory_rows(b.database) == memory_rows(a.database)


async def test_only_what_changed_is_sent_and_merged(make_box: MakeBox) -> None:
    a, b = given_memory(make_box("a")), make_box("b")
    full = await a.push()
    await b.pull()
    write(str(a.database), 10, "a")
    pushed = await a.push()
    assert pushed.kind is SnapshotKind.DELTA
    assert pushed.uploaded_bytes * 5 < full.uploaded_bytes

    pulled = await b.pull()
    assert (pulled.outcome, pulled.inserted, pulled.conflicts) == (PullOutcome.MERGED, 11, 0)
    assert memory_rows(b.database) == memory_rows(a.database)
    assert pulled.backup is not None
    assert [backup.path for backup in backups.listed(b.lane)] == [pulled.backup]


async def test_nothing_new_is_neither_pushed_nor_pulled(make_box: MakeBox) -> None:
    a, b = given_memory(make_box("a")), make_box("b")
    await a.push()
    await b.pull()
    assert (await a.push()).outcome is PushOutcome.UNCHANGED
    assert (await b.pull()).outcome is PullOutcome.UNCHANGED
    with closing(sqlite3.connect(a.database)) as database, database:
        database.execute("UPDATE observations SET relevance_count = relevance_count + 1")
    assert (await a.push()).outcome is PushOutcome.UNCHANGED


async def test_rows_of_both_machines_survive_a_pull(make_box: MakeBox) -> None:
    a, b = given_memory(make_box("a")), make_box("b")
    await a.push()
    await b.pull()
    write(str(a.database), 5, "a")
    write(str(b.database), 5, "b")
    await a.push()
    pulled = await b.pull()
    assert pulled.unsynced == 6
    assert {f"b learned fact {n}" for n in range(5)} | {f"a learned fact {n}" for n in range(5)} <= titles(b)


async def test_a_push_merges_what_others_committed_first(make_box: MakeBox) -> None:
    a, b = given_memory(make_box("a")), make_box("b")
    await a.push()
    await b.pull()
    write(str(a.database), 5, "a")
    write(str(b.database), 5, "b")
    await a.push(epoch=1)
    await b.push(epoch=2)
    await a.pull()
    assert memory_rows(b.database) == memory_rows(a.database)
    assert {f"b learned fact {n}" for n in range(5)} | {f"a learned fact {n}" for n in range(5)} <= titles(a)


async def test_a_long_chain_is_followed_from_any_mirror(make_box: MakeBox) -> None:
    a = given_memory(make_box("a", chain=ChainPolicy(max_deltas=3, max_percent=10_000)))
    b, late = make_box("b"), make_box("late")
    await a.push()
    await b.pull()
    kinds: list[SnapshotKind | None] = []
    for number in range(9):
        write(str(a.database), 2, f"round-{number}")
        kinds.append((await a.push()).kind)
        if number == 1:
            await b.pull()
    assert kinds.count(SnapshotKind.FULL) == 2
    await b.pull()
    await late.pull()
    assert memory_rows(b.database) == memory_rows(a.database) == memory_rows(late.database)


async def test_deletions_and_edits_travel(make_box: MakeBox) -> None:
    a, b = given_memory(make_box("a")), make_box("b")
    await a.push()
    await b.pull()
    with closing(sqlite3.connect(a.database)) as database, database:
        database.execute("DELETE FROM observations WHERE id <= 3")
        database.execute("UPDATE observations SET subtitle = 'edited' WHERE id = 10")
    await a.push()
    pulled = await b.pull()
    assert (pulled.updated, pulled.deleted) == (1, 3)
    assert memory_rows(b.database) == memory_rows(a.database)


async def test_a_shrinking_database_is_not_committed_unasked(make_box: MakeBox) -> None:
    a = given_memory(make_box("a"))
    await a.push()
    with closing(sqlite3.connect(a.database)) as database, database:
        database.execute("DELETE FROM observations")
    with pytest.raises(ShrinkRefusedError):
        await a.push()
    assert (await a.push(allow_shrink=True)).outcome is PushOutcome.COMMITTED


async def test_two_versions_of_claude_mem_share_one_memory(make_box: MakeBox) -> None:
    a, b = given_memory(make_box("a")), given_memory(make_box("b"), OLDER)
    await a.push()
    write(str(a.database), 3, "new-version")
    await a.push()
    await b.pull()
    assert {f"new-version learned fact {n}" for n in range(3)} <= titles(b)
    assert len(titles(b)) == len(titles(a))


async def test_replace_makes_the_database_the_head_after_a_backup(make_box: MakeBox) -> None:
    a, b = given_memory(make_box("a")), make_box("b")
    await a.push()
    await b.pull()
    write(str(b.database), 4, "b")
    replaced = await b.pull(replace=True)
    assert replaced.outcome is PullOutcome.REPLACED
    assert memory_rows(b.database) == memory_rows(a.database)
    assert replaced.backup is not None
    with closing(sqlite3.connect(replaced.backup)) as kept:
        assert kept.execute("SELECT count(*) FROM observations WHERE title LIKE 'b learned%'").fetchone() == (4,)


async def test_a_project_without_snapshots_says_so(make_box: MakeBox) -> None:
    with pytest.raises(NotFoundError, match="no snapshot yet"):
        await make_box("b").pull()


async def test_the_old_layout_is_written_when_asked_for_and_imported_when_there_is_no_head(
    make_box: MakeBox,
) -> None:
    a, b = given_memory(make_box("a", legacy=True)), make_box("b")
    await a.push()
    await a.lane.heads.delete(a.lane.project, deadline=soon())
    async for info in a.lane.store.list(f"projects/{a.lane.project}/commits/", deadline=soon()):
        await a.lane.store.delete(info.key, deadline=soon())

    pulled = await b.pull()
    assert (pulled.outcome, pulled.seq) == (PullOutcome.INSTALLED, 0)
    assert memory_rows(b.database) == memory_rows(a.database)


@pytest.mark.parametrize("asked", [True, False], ids=["pulled first", "pushed at once"])
async def test_rows_of_the_old_tool_and_own_rows_of_the_same_numbers_make_one_snapshot(
    make_box: MakeBox, tmp_path: Path, *, asked: bool
) -> None:
    a, b = given_memory(make_box("a")), make_box("b")
    stored = tmp_path / "stored.db"
    shutil.copyfile(SAMPLE, stored)
    write(str(stored), 3, "stored by the old tool")
    write(str(a.database), 2, "learned here")
    await a.lane.store.upload(legacy_database(a.lane.project), stored, if_absent=False, deadline=soon())

    if asked:
        await a.pull()
    await a.push()
    await b.pull()

    assert memory_rows(b.database) == memory_rows(a.database)
    both = {f"learned here learned fact {number}" for number in range(2)}
    both |= {f"stored by the old tool learned fact {number}" for number in range(3)}
    assert both < titles(b)


async def test_a_first_push_waits_while_what_the_old_tool_stored_is_damaged(make_box: MakeBox) -> None:
    a = given_memory(make_box("a"))
    before, key = memory_rows(a.database), legacy_database(a.lane.project)
    await a.lane.store.put(key, b"no database", if_absent=False, deadline=soon())

    with pytest.raises(MembridgeError):
        await a.push()
    assert memory_rows(a.database) == before
    assert await a.lane.heads.get(a.lane.project, deadline=soon()) is None

    await a.lane.store.delete(key, deadline=soon())
    assert (await a.push()).outcome is PushOutcome.COMMITTED


async def test_a_deletion_travels_across_a_new_chain(make_box: MakeBox) -> None:
    a, b = given_memory(make_box("a", chain=ChainPolicy(max_deltas=0))), make_box("b")
    await a.push()
    await b.pull()
    with closing(sqlite3.connect(a.database)) as database, database:
        database.execute("DELETE FROM observations WHERE id <= 2")
    assert (await a.push()).kind is SnapshotKind.FULL
    assert (await b.pull()).deleted == 2
    assert memory_rows(b.database) == memory_rows(a.database)


class LosingStore(FaultyStore):
    """Takes away the note of where a node's mirror stands while it downloads."""

    position: Path

    async def download(
        self, key: str, target: Path, *, start: int = 0, deadline: Deadline, progress: Progress | None = None
    ) -> None:
        await self.inner.download(key, target, start=start, deadline=deadline, progress=progress)
        await asyncio.to_thread(self.position.unlink, missing_ok=True)


async def test_a_pull_whose_mirror_is_lost_meanwhile_begins_with_the_full_snapshot(
    make_box: MakeBox,
) -> None:
    a, b = given_memory(make_box("a")), make_box("b")
    await a.push()
    await b.pull()
    write(str(a.database), 3, "a")
    await a.push()
    store = LosingStore(b.lane.store)
    store.position = b.lane.mirror.directory / "position.json"

    pulled = await Box(replace(b.lane, store=store), b.events).pull()

    # It begins again with the full snapshot.
    assert (pulled.outcome, pulled.seq) == (PullOutcome.MERGED, 2)
    assert memory_rows(b.database) == memory_rows(a.database)
    assert (await b.pull()).outcome is PullOutcome.UNCHANGED
