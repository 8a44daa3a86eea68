"""Earlier states: compared row by row, and written as a file."""

from dataclasses import replace

import pytest

from membridge.claudemem import database
from membridge.claudemem.memory import memory_rows
from membridge.commits import materialize
from membridge.commits.progress import ProgressTracker
from membridge.errors import DiskFullError
from membridge.system import files
from membridge.testing.writer import write
from schemas.commits import RowChange
from tests.faults.store import FaultyStore
from tests.fixtures.histories import counted, diff, state, with_history
from tests.fixtures.lanes import MakeBox, soon


async def test_diff_tells_what_came_went_and_changed(make_box: MakeBox) -> None:
    box, memories = await with_history(make_box)
    assert counted(await diff(box.lane, 1, 2)) == {"sdk_sessions": (1, 0, 0), "observations": (4, 0, 0)}
    assert counted(await diff(box.lane, 2, 3)) == {"observations": (0, 3, 0)}
    edited = await diff(box.lane, 3, 4)
    assert counted(edited) == {"observations": (0, 0, 1)}
    assert [(row.change, row.columns) for row in edited.rows] == [(RowChange.CHANGED, ["subtitle"])]
    assert counted(await diff(box.lane, 4, 4)) == {}
    back = await diff(box.lane, 5, 2)
    assert counted(back) == {"sdk_sessions": (0, 1, 0), "observations": (3, 2, 1)}
    assert {row.title for row in back.rows if row.change is RowChange.WENT} >= {
        f"fifth learned fact {n}" for n in (0, 1)
    }
    everything = await diff(box.lane, 0, 5, limit=3)
    assert {name: came for name, (came, _, _) in counted(everything).items()} == {
        name: len(rows) for name, rows in memories[5].items() if rows
    }
    assert len(everything.rows) == 3
    assert counted(await diff(box.lane, 5, 0)) == {
        name: (0, came, 0) for name, (came, _, _) in counted(everything).items()
    }


async def test_any_state_becomes_a_database_that_claude_mem_can_use(make_box: MakeBox) -> None:
    box, memories = await with_history(make_box)
    for seq in range(1, 6):
        path = await materialize.extract(
            box.lane, await state(box.lane, seq), progress=ProgressTracker(), deadline=soon()
        )
        assert memory_rows(path) == memories[seq]
        assert path.stat().st_mode & 0o777 == 0o600
        database.quick_check(path, deadline=soon())
        write(str(path), 1, "usable")
    assert list(box.lane.folder.glob("scratch-*")) == []


async def test_a_full_disk_is_said_before_anything_is_written(
    make_box: MakeBox, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, _ = await with_history(make_box)
    monkeypatch.setattr(files, "free_bytes", lambda _: 1000)
    with pytest.raises(DiskFullError, match="1000 free"):
        await materialize.extract(a.lane, await state(a.lane, 2), progress=ProgressTracker(), deadline=soon())


async def test_the_newest_state_is_not_downloaded_again(make_box: MakeBox) -> None:
    a, memories = await with_history(make_box)
    for info in [info async for info in a.lane.store.list("projects/", deadline=soon()) if "/snapshots/" in info.key]:
        await a.lane.store.delete(info.key, deadline=soon())
    silent = replace(a.lane, store=FaultyStore(a.lane.store, die_at=1))
    path = await materialize.extract(silent, await state(a.lane, "head"), progress=ProgressTracker(), deadline=soon())
    assert memory_rows(path) == memories[5]
