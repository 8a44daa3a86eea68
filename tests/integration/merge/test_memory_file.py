"""A memory of rows: fulls and deltas lead to what they promise, or change nothing."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from membridge.aio.deadline import Deadline
from membridge.claudemem.connection import open_live
from membridge.claudemem.memory import memory_rows, memory_sum
from membridge.claudemem.tables import travelling_tables
from membridge.merge.build import build
from membridge.merge.fill import fill
from membridge.merge.memory_file import MemoryFile, OtherMemoryError
from membridge.merge.report import Source
from membridge.merge.row_delta import delta_of
from membridge.merge.row_stream import MalformedStreamError, Message, Tail, decode, encode
from membridge.merge.rows import Key, Reader
from schemas.identity import NodeId
from tests.fixtures.databases import NEW, OLD, Writer, execute, make_database, rows_of

SOURCE = Source(NodeId("b"))


def soon() -> Deadline:
    """Return a deadline that nothing here needs."""
    return Deadline.after(60.0)


@contextmanager
def filled(live: Path) -> Iterator[MemoryFile]:
    """Give a memory that holds what a database does."""
    path = live.with_name("state.memory")
    with closing(MemoryFile(path, deadline=soon(), building=True)) as memory:
        fill(memory, live, is_live=True, deadline=soon())
        memory.note_counted(memory.counted())
        memory.note(b"1")
        memory.settle()
    with closing(MemoryFile(path, deadline=soon())) as memory:
        yield memory


def take_in(memory: MemoryFile, messages: list[Message], position: bytes) -> None:
    """Take a delta in and end the transaction, as a pull does; close the file where that fails."""
    memory.begin()
    try:
        memory.take_in(messages)
    except BaseException:
        memory.close()
        raise
    memory.commit(position)


def rows_in(memory: MemoryFile) -> dict[str, set[bytes]]:
    """Return the rows of a memory as `memory_rows` returns those of a database."""
    found: dict[str, set[bytes]] = {name: set() for name in memory.origins()}
    for row in memory.sent():
        found[row.table].add(row.canonical)
    return found


def delta(memory: MemoryFile, live: Path, keys: dict[str, list[Key]] | None = None) -> list[Message]:
    """Return what changed, under the keys of all rows unless some are given."""
    with open_live(live, deadline=soon()) as connection:
        return list(delta_of(memory, connection, keys or all_keys(memory, live)))


def all_keys(memory: MemoryFile, live: Path) -> dict[str, list[Key]]:
    """Return every key that either side has."""
    found = dict[str, dict[Key, None]]()
    with open_live(live, deadline=soon()) as opened:
        for connection in (memory.connection, opened):
            for name, table in travelling_tables(connection).items():
                for _, key in Reader(connection, table).keys(-(1 << 63), (1 << 63) - 1):
                    if key is not None:
                        found.setdefault(name, {})[key] = None
    return {name: list(keys) for name, keys in found.items()}


@pytest.mark.parametrize("version", [NEW, OLD])
def test_a_memory_holds_the_rows_of_its_database_and_gives_them_back(tmp_path: Path, version: str) -> None:
    live = make_database(tmp_path / "claude-mem.db", version=version)
    with filled(live) as memory:
        assert rows_in(memory) == memory_rows(live)
        memory.check()
        build(memory.path, memory.schema(), tmp_path / "built.db", source=SOURCE, deadline=soon())

    assert memory_sum(tmp_path / "built.db") == memory_sum(live)


def test_a_delta_leads_to_what_the_live_database_is_and_is_small(claude_mem_copy: Path) -> None:
    live = claude_mem_copy
    with filled(live) as memory:
        with Writer(live) as writer:
            writer.batch(10)
        execute(
            live, "UPDATE observations SET narrative = 'edited' WHERE id = 3; DELETE FROM user_prompts WHERE id = 9"
        )
        execute(live, "UPDATE sdk_sessions SET content_session_id = 'renamed' WHERE id = 2")
        raw = b"".join(encode(delta(memory, live), level=12))
        take_in(memory, list(decode([raw])), b"2")

        assert rows_in(memory) == memory_rows(live)
        assert memory.position() == b"2"
        memory.check()
        assert len(raw) < 12_000


def test_a_delta_of_nothing_has_no_rows(claude_mem_copy: Path) -> None:
    with filled(claude_mem_copy) as memory:
        assert delta(memory, claude_mem_copy) == []


@pytest.mark.parametrize("wrong", ["another memory", "another result", "no end", "a row that is not there"])
def test_a_delta_that_does_not_fit_changes_nothing(claude_mem_copy: Path, wrong: str) -> None:
    live = claude_mem_copy
    with filled(live) as memory:
        execute(live, "DELETE FROM observations WHERE id = 3; UPDATE observations SET title = 'x' WHERE id = 4")
        messages, before = delta(memory, live), rows_in(memory)
        if wrong == "another memory":
            take_in(memory, messages, b"2")
            before = rows_in(memory)
        elif wrong == "another result":
            messages[-1] = Tail(memory.rows(), memory.sums())
        elif wrong == "no end":
            del messages[-1]
        else:
            messages.insert(2, messages[1])

        with pytest.raises((OtherMemoryError, MalformedStreamError)):
            take_in(memory, messages, b"3")

        with closing(MemoryFile(memory.path, deadline=soon())) as again:
            assert rows_in(again) == before
            assert again.position() != b"3"
            again.check()


def test_an_old_node_in_the_middle_loses_nothing_of_a_newer_one(tmp_path: Path) -> None:
    newer, older = make_database(tmp_path / "new.db"), make_database(tmp_path / "old.db")
    execute(newer, "ALTER TABLE observations ADD COLUMN mood TEXT; UPDATE observations SET mood = 'calm'")
    execute(
        newer, "CREATE TABLE moods (id INTEGER PRIMARY KEY, name TEXT UNIQUE); INSERT INTO moods (name) VALUES ('odd')"
    )
    with filled(newer) as memory:
        execute(older, "UPDATE observations SET narrative = 'edited by the old one' WHERE id = 3")
        take_in(memory, delta(memory, older), b"2")
        build(memory.path, memory.schema(), tmp_path / "built.db", source=SOURCE, deadline=soon())

    found = rows_of(tmp_path / "built.db", "SELECT mood, narrative FROM observations WHERE id = 3")
    assert found == [("calm", "edited by the old one")]
    assert rows_of(tmp_path / "built.db", "SELECT name FROM moods") == [("odd",)]


def test_a_column_and_a_table_that_the_memory_does_not_know_travel_in_a_delta(claude_mem_copy: Path) -> None:
    live = claude_mem_copy
    with filled(live) as memory:
        execute(
            live, "ALTER TABLE observations ADD COLUMN mood TEXT; UPDATE observations SET mood = 'calm' WHERE id = 3"
        )
        execute(live, "CREATE TABLE moods (id INTEGER PRIMARY KEY, name TEXT UNIQUE)")
        execute(live, "INSERT INTO moods (name) VALUES ('odd'); INSERT INTO schema_versions VALUES (99, 999, 'now')")
        take_in(memory, list(decode(encode(delta(memory, live)))), b"2")

        assert rows_in(memory) == memory_rows(live)
        assert (99, 999, "now") in memory.schema().versions
        assert delta(memory, live) == []
        build(memory.path, memory.schema(), live.with_name("built.db"), source=SOURCE, deadline=soon())

    assert memory_sum(live.with_name("built.db")) == memory_sum(live)


@pytest.mark.parametrize("change", ["DELETE FROM observations WHERE rowid = 5", "UPDATE observations SET title = 'x'"])
def test_a_memory_that_was_damaged_is_found(claude_mem_copy: Path, change: str) -> None:
    with filled(claude_mem_copy) as memory:
        execute(memory.path, f"PRAGMA foreign_keys = OFF; {change}")

        with pytest.raises(OtherMemoryError):
            memory.check()
