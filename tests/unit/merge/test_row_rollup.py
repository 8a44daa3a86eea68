"""Rollups: whatever a history does, the joined delta leads to the same rows as its deltas one by one."""

from collections.abc import Iterable
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from membridge.aio.deadline import Deadline
from membridge.claudemem import canonical
from membridge.claudemem.connection import MEMORY_SUFFIX
from membridge.merge import row_rollup, row_stream
from membridge.merge.memory_file import MemoryFile, digest_of
from membridge.merge.row_stream import Link, MalformedStreamError, Message, Origin, Schema, Sent, Tail, Went

#: A table whose keys are unique, and one whose keys name buckets of rows.
NOTES, BUCKETS = "notes", "observations"
TABLES = {
    NOTES: Origin(["name", "text"], ["name"], {}, ["content_hash"]),
    BUCKETS: Origin(["memory_session_id", "created_at_epoch", "title"], ["memory_session_id", "created_at_epoch"], {}),
}
#: The same table as a newer version knows it.
WIDER = Origin(["name", "text", "tint"], ["name"], {}, ["content_hash"])
SCHEMA = Schema(4096, 0, 1, [("table", NOTES, "CREATE TABLE notes (name TEXT PRIMARY KEY, text)")], [], {})
NEWER = msgspec.structs.replace(SCHEMA, user_version=2)

Row = tuple[str, bytes]
State = dict[Row, Sent]


def note(name: int, text: int, carried: int, *, tinted: bool) -> Sent:
    content = {"name": f"n{name}", "text": f"t{text}"} | ({"tint": "red"} if tinted else {})
    return sent(NOTES, content, {"content_hash": f"h{carried}"})


def observation(key: int, title: int) -> Sent:
    return sent(BUCKETS, {"created_at_epoch": key, "memory_session_id": "m", "title": f"t{title}"}, {})


def sent(table: str, content: dict[str, object], carried: dict[str, str | int | float | None]) -> Sent:
    raw = msgspec.msgpack.encode([canonical.VERSION, table, dict(sorted(content.items()))])
    return Sent(table, raw, 1 + canonical.row_sum(raw) % 40, carried)


def row_of(one: Sent) -> Row:
    return one.table, canonical.stored(canonical.row_sum(one.canonical))


def key_of(one: Sent) -> list[int | float | str | None]:
    content = canonical.decode(one.canonical)[1]
    return [content[column] for column in TABLES[one.table].key]  # pyright: ignore[reportReturnType]


def sums_of(state: State) -> dict[str, bytes]:
    tables = {table for table, _ in state}
    return {name: canonical.total(one.canonical for one in state.values() if one.table == name) for name in tables}


def tail_of(state: State) -> Tail:
    tables = {table for table, _ in state}
    return Tail({name: sum(one.table == name for one in state.values()) for name in tables}, sums_of(state))


def state_of(rows: Iterable[Sent]) -> State:
    """Return rows as a state: under each name one note, and no row twice."""
    notes = {tuple(key_of(one)): one for one in rows if one.table == NOTES}
    return {row_of(one): one for one in [*notes.values(), *(one for one in rows if one.table == BUCKETS)]}


def delta(before: State, after: State, *, news: bool) -> list[Message]:
    link = Link(sums_of(before), NEWER, {NOTES: WIDER}) if news else Link(sums_of(before))
    went = [Went(one.table, key_of(one), row[1]) for row, one in before.items() if row not in after]
    came = [one for row, one in after.items() if row not in before]
    return [link, *went, *came, tail_of(after)]


def content(memory: MemoryFile) -> dict[str, list[tuple[object, ...]]]:
    found = dict[str, list[tuple[object, ...]]]()
    for name, origin in memory.origins().items():
        columns = ", ".join((*origin.columns, *origin.carried))
        found[name] = sorted(memory.connection.rows(f"SELECT {columns} FROM {name}"), key=repr)
    return found


def built(state: State, deltas: Iterable[Iterable[Message]], folder: Path, name: str) -> tuple[object, ...]:
    """Return all that a memory holds that begins as `state` and takes in `deltas`."""
    with closing(MemoryFile(folder / f"{name}{MEMORY_SUFFIX}", deadline=Deadline.after(60.0), building=True)) as memory:
        rows = [msgspec.structs.replace(one, rowid=number) for number, one in enumerate(state.values(), start=1)]
        memory.know(SCHEMA, TABLES)
        memory.take_in([Link({}), *rows, tail_of(state)])
        for messages in deltas:
            memory.take_in(messages)
        memory.check()
        return memory.digest(), memory.rows(), memory.schema(), memory.origins(), content(memory)


PLAIN, TINTS = st.sampled_from([False]), st.booleans()
NOTE = st.builds(note, st.integers(1, 4), st.integers(1, 3), st.integers(1, 2), tinted=PLAIN)
TINTED = st.builds(note, st.integers(1, 4), st.integers(1, 3), st.integers(1, 2), tinted=TINTS)
OBSERVATION = st.builds(observation, st.integers(1, 2), st.integers(1, 4))
ROWS = st.lists(st.one_of(NOTE, OBSERVATION), max_size=6)
NEWER_ROWS = st.lists(st.one_of(TINTED, OBSERVATION), max_size=6)


@settings(deadline=None)
@given(older=st.lists(ROWS, min_size=1, max_size=6), newer=st.lists(NEWER_ROWS, max_size=4), data=st.data())
def test_a_rollup_is_what_its_deltas_are_one_by_one(
    older: list[list[Sent]], newer: list[list[Sent]], data: st.DataObject
) -> None:
    states = [state_of(rows) for rows in (*older, *newer)]
    deltas = [
        delta(before, after, news=number == len(older) - 1) for number, (before, after) in enumerate(pairwise(states))
    ]
    if not deltas:
        return
    cut = data.draw(st.integers(1, len(deltas)))
    # A rollup is a delta: it can be part of another one, and goes through the stream like any other.
    first = list(row_rollup.join(deltas[:cut]))
    joined = list(row_stream.decode(row_stream.encode(row_rollup.join([first, *deltas[cut:]]))))
    row_rollup.check(joined, digest_of(sums_of(states[0])), digest_of(sums_of(states[-1])))
    with TemporaryDirectory() as name:
        folder = Path(name)
        assert built(states[0], deltas, folder, "deltas") == built(states[0], [joined], folder, "rollup")
    came = [row_of(one) for one in joined if isinstance(one, Sent)]
    assert set(came) <= states[-1].keys()
    assert len(came) == len(set(came))
    assert len(joined) <= sum(map(len, deltas))


def three() -> list[State]:
    return [state_of([note(1, text, 1, tinted=False)]) for text in (1, 2, 3)]


def test_deltas_that_do_not_follow_each_other_are_refused() -> None:
    a, b, c = three()
    with pytest.raises(MalformedStreamError, match="do not follow"):
        row_rollup.join([delta(a, b, news=False), delta(a, c, news=False)])
    with pytest.raises(MalformedStreamError, match="nothing to join"):
        row_rollup.join([])


def test_rows_that_do_not_add_up_are_refused() -> None:
    a, b, c = three()
    one, two = delta(a, b, news=False), delta(b, c, news=False)
    for lacking in (1, 2):
        with pytest.raises(MalformedStreamError, match="add up"):
            row_rollup.join([one, two[:lacking] + two[lacking + 1 :]])
    with pytest.raises(MalformedStreamError, match="goes twice"):
        row_rollup.join([[one[0], one[1], *one[1:]], two])


def test_a_rollup_of_other_states_is_found() -> None:
    a, b, c = three()
    joined = list(row_rollup.join([delta(a, b, news=False), delta(b, c, news=False)]))
    names = [digest_of(sums_of(one)) for one in (a, b, c)]
    row_rollup.check(joined, names[0], names[2])
    with pytest.raises(MalformedStreamError, match="made for another"):
        row_rollup.check(joined, names[1], names[2])
    with pytest.raises(MalformedStreamError, match="leads to another"):
        row_rollup.check(joined, names[0], names[1])
    with pytest.raises(MalformedStreamError, match="add up"):
        row_rollup.check([one for one in joined if not isinstance(one, Went)], names[0], names[2])
