"""History and tags: what is kept, by whom, how the rows changed; a name holds on to its snapshot."""

import shutil
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from membridge.commits import history, layout, tags
from membridge.errors import ConflictError, CorruptObjectError, InvalidRequestError, NotFoundError
from membridge.testing.writer import write
from schemas.commits import HistoryReply, HistoryRequest, Tag
from schemas.identity import Seq
from tests.fixtures.lanes import Box, MakeBox, soon

SAMPLE = Path(__file__).parents[2] / "data" / "claude-mem-13.25.3.db"


async def with_three_commits(make_box: MakeBox) -> Box:
    """Give a node whose second commit added three observations of a session and whose third deleted two."""
    box = make_box("a")
    shutil.copyfile(SAMPLE, box.database)
    await box.push()
    write(str(box.database), 3, "a")
    await box.push()
    with closing(sqlite3.connect(box.database)) as database, database:
        database.execute("DELETE FROM observations WHERE id <= 2")
    await box.push()
    return box


async def read(box: Box, limit: int = 20, before: Seq | None = None) -> HistoryReply:
    return await history.read(box.lane, HistoryRequest(limit=limit, before=before), deadline=soon())


async def tag(box: Box, name: str, seq: Seq, *, move: bool = False) -> Tag:
    record = await history.resolve(box.lane, str(seq), deadline=soon())
    assert record is not None
    return await tags.put(box.lane, name, record, move=move, deadline=soon())


async def test_history_says_how_rows_changed_and_goes_on_where_it_was_left(make_box: MakeBox) -> None:
    box = await with_three_commits(make_box)
    reply = await read(box)
    assert [record.seq for record in reply.records] == [3, 2, 1]
    changes = {change.seq: change.tables for change in reply.changes}
    assert changes[3] == {"observations": -2}
    assert changes[2] == {"sdk_sessions": 1, "observations": 3}
    assert changes[1]["observations"] > 0
    page = await read(box, limit=1, before=3)
    assert [record.seq for record in page.records] == [2]
    assert [change.seq for change in page.changes] == [2]
    assert (await read(box, before=1)).records == []
    assert (await read(make_box("b"))).records == reply.records


async def test_history_has_gaps_where_records_are_gone(make_box: MakeBox) -> None:
    box = await with_three_commits(make_box)
    await box.lane.store.delete(layout.commit(box.lane.project, 2), deadline=soon())
    reply = await read(box, limit=2)
    assert [record.seq for record in reply.records] == [3, 1]
    assert [change.seq for change in reply.changes] == [1]


async def test_a_state_has_many_names(make_box: MakeBox) -> None:
    box = await with_three_commits(make_box)
    await tag(box, "before-clean-up", 2)
    middle = await history.resolve(box.lane, "2", deadline=soon())
    assert middle is not None
    later = (datetime.fromisoformat(middle.created_at) + timedelta(microseconds=1)).isoformat()
    for state, expected in {"head": 3, "3": 3, "before-clean-up": 2, f"@{later}": 2, "002": 2}.items():
        found = await history.resolve(box.lane, state, deadline=soon())
        assert found is not None
        assert found.seq == expected
    assert await history.resolve(box.lane, "0", deadline=soon()) is None
    past = (datetime.now(UTC) - timedelta(days=9)).isoformat()
    for unknown in ("9", "no-such-tag", f"@{past}"):
        with pytest.raises(NotFoundError):
            await history.resolve(box.lane, unknown, deadline=soon())
    for nonsense in ("@yesterday", "a b", "../x", ""):
        with pytest.raises(InvalidRequestError):
            await history.resolve(box.lane, nonsense, deadline=soon())


async def test_a_tag_is_set_once_moved_when_asked_and_deleted(make_box: MakeBox) -> None:
    box, other = await with_three_commits(make_box), make_box("b")
    await tag(box, "v1", 1)
    await tag(other, "v1", 1)
    with pytest.raises(ConflictError, match="already names snapshot 1"):
        await tag(other, "v1", 2)
    await tag(other, "v1", 2, move=True)
    assert [(one.name, one.seq, one.node) for one in await tags.listed(box.lane, deadline=soon())] == [("v1", 2, "b")]
    assert [one.name for one in (await read(box)).tags] == ["v1"]
    assert (await tags.delete(box.lane, "v1", deadline=soon())).seq == 2
    with pytest.raises(NotFoundError, match="no tag v1"):
        await tags.delete(box.lane, "v1", deadline=soon())
    assert await tags.listed(box.lane, deadline=soon()) == []


@pytest.mark.parametrize("name", ["head", "12", "", "a.b", "a/b", "a b", "x" * 65])
def test_what_names_something_else_is_no_tag(name: str) -> None:
    with pytest.raises(InvalidRequestError):
        tags.checked(name)


async def test_a_tag_that_cannot_be_read_is_never_taken_for_none(make_box: MakeBox) -> None:
    box = await with_three_commits(make_box)
    await tag(box, "v1", 1)
    await box.lane.store.put(layout.tag(box.lane.project, "v1"), b"[]", if_absent=False, deadline=soon())
    with pytest.raises(CorruptObjectError, match="v1"):
        await tags.listed(box.lane, deadline=soon())
