"""How the live database stands to the mirror is known without comparing everything, and always right."""

from contextlib import closing
from pathlib import Path

import pytest

from membridge.claudemem import database
from membridge.claudemem.memory import memory_rows
from membridge.merge import row_index
from membridge.merge.audit import AUDIT_FILE, Audit
from membridge.merge.row_index import INDEX_FILE, missed_in
from membridge.snapshot import standing
from schemas.snapshot import PushOutcome
from tests.fixtures.databases import add_observation, connect, execute, make_database, rows_of
from tests.fixtures.lanes import Box, MakeBox, soon

pytestmark = pytest.mark.parametrize("lane_store", ["jetstream"], indirect=True)


def unsynced(box: Box) -> int:
    """Return the number that `status` shows."""
    return standing.numbers(box.lane, deadline=soon()).unsynced


def edit(box: Box, number: int) -> None:
    """Edit one observation."""
    execute(box.database, "UPDATE observations SET narrative = 'edited' WHERE id = ?", (number,))


def forbid(monkeypatch: pytest.MonkeyPatch, where: object, name: str) -> None:
    """Let a test fail where something is done that costs as much as the database is large."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError(f"{name} reads everything")

    monkeypatch.setattr(where, name, refuse)


async def two_boxes(make_box: MakeBox) -> tuple[Box, Box]:
    """Return two nodes with one memory."""
    a, b = make_box("a"), make_box("b")
    for box in (a, b):
        make_database(box.database)
    await a.push()
    await b.pull()
    return a, b


async def test_after_a_push_and_a_pull_nothing_is_compared_but_what_changes(
    make_box: MakeBox, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = await two_boxes(make_box)
    # claude-mem's worker has its database open, and wrote what does not travel.
    with closing(connect(a.database)) as one, closing(connect(b.database)) as other:
        for worker in (one, other):
            worker.execute("UPDATE observations SET relevance_count = 1 WHERE id = 1")
        assert (unsynced(a), unsynced(b)) == (0, 0)
        forbid(monkeypatch, row_index, "_difference")
        edit(a, 1)
        edit(b, 2)
        assert (unsynced(a), unsynced(b)) == (1, 1)

        await a.push()
        await b.pull()

        assert (unsynced(a), unsynced(b)) == (0, 1)
        execute(b.database, "DELETE FROM observations WHERE id = 3")
        assert unsynced(b) == 2
        execute(b.database, "INSERT INTO observations_fts(observations_fts) VALUES ('optimize')")
        assert unsynced(b) == 2


async def test_a_push_without_news_copies_nothing(make_box: MakeBox, monkeypatch: pytest.MonkeyPatch) -> None:
    a, _ = await two_boxes(make_box)
    execute(a.database, "UPDATE observations SET relevance_count = relevance_count + 1")
    forbid(monkeypatch, database, "quick_check")

    assert (await a.push()).outcome is PushOutcome.UNCHANGED


async def test_a_second_copy_of_a_row_is_no_news(make_box: MakeBox) -> None:
    a, _ = await two_boxes(make_box)
    columns = "content_session_id, prompt_number, prompt_text, created_at, created_at_epoch, session_db_id"
    execute(a.database, f"INSERT INTO user_prompts ({columns}) SELECT {columns} FROM user_prompts WHERE id = 1")

    assert (await a.push()).outcome is PushOutcome.UNCHANGED
    execute(a.database, "DELETE FROM user_prompts WHERE id = 1")
    assert (await a.push()).outcome is PushOutcome.UNCHANGED
    assert standing.numbers(a.lane, deadline=soon()).unsynced == 0


async def test_rows_by_table_are_those_of_the_database(make_box: MakeBox) -> None:
    a, _ = await two_boxes(make_box)
    execute(a.database, "DELETE FROM observations WHERE id < 100")
    add_observation(a.database, "new")

    rows = standing.numbers(a.lane, deadline=soon()).rows

    assert rows == database.inspect(a.database, deadline=soon()).rows
    assert rows["observations"] == rows_of(a.database, "SELECT count(*) FROM observations")[0][0]


@pytest.mark.parametrize("damage", ["other bytes", "a folder"])
async def test_an_index_that_cannot_be_used_costs_a_comparison_and_nothing_else(make_box: MakeBox, damage: str) -> None:
    a, _ = await two_boxes(make_box)
    edit(a, 1)
    a.lane.index.close()
    file = a.lane.folder / INDEX_FILE
    file.unlink()
    if damage == "a folder":
        file.mkdir()
    else:
        file.write_bytes(b"no database" * 500)

    assert [unsynced(a) for _ in range(3)] == [1, 1, 1]
    assert len(standing.proposable(a.lane, deadline=soon())) == 1
    assert (await a.push()).outcome is PushOutcome.COMMITTED
    assert unsynced(a) == 0


async def test_what_was_missed_is_found_by_the_daily_comparison_told_and_healed(make_box: MakeBox) -> None:
    a, _ = await two_boxes(make_box)
    edit(a, 1)
    assert unsynced(a) == 1
    forget_open_keys(a.lane.folder / INDEX_FILE)
    assert unsynced(a) == 0

    assert audited(a) == 1

    assert (unsynced(a), audited(a)) == (1, 0)
    assert missed_in(a.lane.folder / INDEX_FILE) == 1


async def test_the_daily_comparison_finds_nothing_where_nothing_was_missed(make_box: MakeBox) -> None:
    a, _ = await two_boxes(make_box)
    edit(a, 1)

    assert audited(a) == 0
    assert missed_in(a.lane.folder / INDEX_FILE) == 0


def audited(box: Box) -> int:
    """Compare everything, and return how many keys had been missed."""
    audit, missed = Audit(box.lane.folder / AUDIT_FILE, box.lane.index), 0
    while found := standing.audit_slice(box.lane, audit, deadline=soon()):
        missed += found.missed
        if found.is_last:
            return missed
    raise AssertionError("there was nothing to compare")


def forget_open_keys(index: Path) -> None:
    """Make an index that has missed something."""
    execute(index, "DELETE FROM open")


async def test_a_damaged_mirror_is_forgotten_before_its_gaps_are_sent(make_box: MakeBox) -> None:
    a, b = await two_boxes(make_box)
    mirror = a.lane.mirror.path()
    assert mirror is not None
    execute(mirror, "PRAGMA foreign_keys = OFF; DELETE FROM observations WHERE rowid = 7")
    audit = Audit(a.lane.folder / AUDIT_FILE, a.lane.index)

    while (found := standing.audit_slice(a.lane, audit, deadline=soon())) is not None and not found.is_last:
        pass

    assert a.lane.mirror.position() is None
    add_observation(a.database, "new")
    await a.pull()
    await a.push()
    await b.pull()
    assert memory_rows(b.database) == memory_rows(a.database)
