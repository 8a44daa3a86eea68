"""Earlier states brought back as the memory of all machines."""

import sqlite3
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from membridge.aio.deadline import Deadline
from membridge.claudemem.memory import memory_rows
from membridge.commits import materialize
from membridge.commits.progress import ProgressTracker
from membridge.errors import (
    CorruptObjectError,
    MembridgeError,
    ShrinkRefusedError,
    StoreUnavailableError,
)
from membridge.merge.compare import Comparison
from membridge.snapshot import backups, push, restore
from membridge.testing.writer import write
from schemas.commits import RowChange
from schemas.snapshot import PushOutcome
from tests.faults.store import FaultyStore
from tests.fixtures.histories import change, counted, diff, state, with_history
from tests.fixtures.lanes import Box, MakeBox, soon


@dataclass(slots=True)
class DeafStore(FaultyStore):
    """Stores commit records, and loses every answer to that."""

    async def put(self, key: str, body: bytes, *, if_absent: bool = True, deadline: Deadline) -> None:
        await self.inner.put(key, body, if_absent=if_absent, deadline=deadline)
        raise StoreUnavailableError(f"no answer for {key}")


def titles(path: Path) -> set[str]:
    with closing(sqlite3.connect(path)) as opened:
        return {row[0] for row in opened.execute("SELECT title FROM observations")}


async def take_back(box: Box, seq: int, *, limit: int = 0) -> restore.Restored:
    record = await state(box.lane, seq)
    return await restore.take_back(box.lane, record, epoch=1, limit=limit, progress=ProgressTracker(), deadline=soon())


def kinds(found: Comparison) -> set[tuple[str, str, str]]:
    return {(row.table, row.change, row.title) for row in found.rows}


async def test_a_restored_memory_is_a_new_snapshot_on_every_machine(make_box: MakeBox) -> None:
    a, memories = await with_history(make_box)
    b, c = make_box("b"), make_box("c")
    await b.pull()
    await c.pull()
    write(str(b.database), 2, "b-unsynced")
    write(str(a.database), 1, "a-unsynced")
    restored = await take_back(a, 2)
    assert (restored.report.inserted, restored.report.updated, restored.report.deleted) == (3, 1, 3)
    assert restored.report.unsynced == 2
    assert [one.reason for one in backups.listed(a.lane)] == ["restore"]
    pushed = await a.push(allow_shrink=True)
    assert (pushed.outcome, pushed.seq) == (PushOutcome.COMMITTED, 6)

    own = memory_rows(a.database)["observations"] - memories[2]["observations"]
    assert len(own) == 1
    assert b"a-unsynced" in own.pop()
    await c.pull()
    assert memory_rows(c.database) == memory_rows(a.database)
    pulled = await b.pull()
    assert (pulled.deleted, pulled.conflicts) == (3, 0)
    assert {f"b-unsynced learned fact {n}" for n in (0, 1)} <= titles(b.database)
    assert not any(title.startswith("fifth") for title in titles(b.database))
    missing = {table: rows - memory_rows(b.database)[table] for table, rows in memories[2].items()}
    assert not any(missing.values())
    # Nothing was rewritten: what was before the restore can be had again.
    assert counted(await diff(a.lane, 5, 4)) == {"sdk_sessions": (0, 1, 0), "observations": (0, 2, 0)}
    await take_back(a, 5)
    await a.push(allow_shrink=True)
    assert memory_rows(a.database) == memories[5]


async def test_restoring_the_head_or_twice_changes_nothing(make_box: MakeBox) -> None:
    a, _ = await with_history(make_box)
    before = memory_rows(a.database)
    assert (await take_back(a, 5)).report.deleted == 0
    assert memory_rows(a.database) == before
    assert (await a.push()).outcome is PushOutcome.UNCHANGED
    await take_back(a, 3)
    again = (await take_back(a, 3)).report
    assert (again.inserted, again.updated, again.deleted) == (0, 0, 0)


async def test_what_only_the_live_database_lost_or_edited_comes_back_and_the_preview_says_so(
    make_box: MakeBox,
) -> None:
    a, memories = await with_history(make_box)
    for seq in (5, 4):
        change(a.database, "DELETE FROM observations WHERE id % 2 = 0")
        change(a.database, "UPDATE observations SET narrative = '' WHERE id BETWEEN 20 AND 40")
        write(str(a.database), 2, f"own of {seq}")
        before = memory_rows(a.database)
        record, head = await state(a.lane, seq), await state(a.lane, "head")
        seen = await restore.preview(a.lane, record, head, limit=1000, progress=ProgressTracker(), deadline=soon())
        assert memory_rows(a.database) == before
        restored = await take_back(a, seq, limit=1000)
        assert seen.commits
        assert kinds(seen.changes) == kinds(restored.changes)
        after = memory_rows(a.database)
        assert all(memories[seq][table] <= after[table] for table in after)
        kept = {table: after[table] - memories[seq][table] for table in after}
        assert all(rows <= before[table] - memories[5][table] for table, rows in kept.items())
        assert {f"own of {seq} learned fact {n}" for n in (0, 1)} <= titles(a.database)
        counts = restored.changes.counts["observations"]
        assert counts[RowChange.KEPT] == len(kept["observations"])
        assert counts[RowChange.CAME] == len([row for row in restored.changes.rows if row.change is RowChange.CAME])
        assert counts[RowChange.CHANGED] >= 10
    assert list(a.lane.folder.glob("scratch-*")) == []


async def test_a_restored_database_that_lacks_many_rows_of_its_state_is_not_committed(make_box: MakeBox) -> None:
    a, memories = await with_history(make_box)
    write(str(a.database), 400, "much more")
    await a.push()
    head, record = await state(a.lane, "head"), await state(a.lane, 2)
    await take_back(a, 2)
    change(a.database, "DELETE FROM observations WHERE id > 20")
    with pytest.raises(ShrinkRefusedError, match="snapshot 2 has") as refused:
        await push.push(
            a.lane, epoch=1, allow_shrink=False, restored=record, progress=ProgressTracker(), deadline=soon()
        )
    assert "restore --seq 2" in refused.value.remedy
    assert (await state(a.lane, "head")).seq == head.seq
    await take_back(a, 2)
    # It is much less than the head has, and that is what was asked for.
    pushed = await push.push(
        a.lane, epoch=1, allow_shrink=False, restored=record, progress=ProgressTracker(), deadline=soon()
    )
    assert pushed.outcome is PushOutcome.COMMITTED
    assert memory_rows(a.database) == memories[2]


async def test_a_restore_whose_commit_was_stored_without_an_answer_ends_the_same_when_it_is_run_again(
    make_box: MakeBox,
) -> None:
    a, memories = await with_history(make_box)
    deaf = replace(a.lane, store=DeafStore(a.lane.store))
    record = await state(a.lane, 2)
    change(a.database, "DELETE FROM observations WHERE id % 2 = 0")
    await take_back(a, 2)
    with pytest.raises(StoreUnavailableError):
        await push.push(deaf, epoch=1, allow_shrink=False, restored=record, progress=ProgressTracker(), deadline=soon())
    restored = await take_back(a, 2)
    assert restored.changes.tables() == []
    pushed = await push.push(
        a.lane, epoch=1, allow_shrink=False, restored=record, progress=ProgressTracker(), deadline=soon()
    )
    assert (pushed.outcome, pushed.seq) == (PushOutcome.UNCHANGED, 6)
    assert memory_rows(a.database) == memories[2]
    b = make_box("b")
    await b.pull()
    assert memory_rows(b.database) == memories[2]


async def test_a_restore_that_cannot_read_its_state_changes_nothing(make_box: MakeBox) -> None:
    a, _ = await with_history(make_box)
    before = memory_rows(a.database)
    stored = (await state(a.lane, 2)).object
    assert stored is not None
    body = bytearray(await a.lane.store.get(stored.key, deadline=soon()))
    body[len(body) // 2] ^= 1
    await a.lane.store.put(stored.key, bytes(body), if_absent=False, deadline=soon())
    with pytest.raises((CorruptObjectError, MembridgeError)):
        await take_back(a, 2)
    await a.lane.store.delete(stored.key, deadline=soon())
    with pytest.raises(MembridgeError):
        await materialize.extract(a.lane, await state(a.lane, 2), progress=ProgressTracker(), deadline=soon())
    assert memory_rows(a.database) == before
    assert backups.listed(a.lane) == []
    assert list((a.lane.folder).glob("extracted/*")) == []
