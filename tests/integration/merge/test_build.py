"""A database that is built of a memory file is that of another machine of the same version."""

from contextlib import closing
from pathlib import Path
from threading import Event, current_thread

import pytest

from membridge.aio.deadline import Deadline
from membridge.claudemem.memory import memory_rows, memory_sum
from membridge.claudemem.sql import Value
from membridge.errors import DatabaseInvalidError
from membridge.merge import search_index
from membridge.merge.build import build
from membridge.merge.fill import fill
from membridge.merge.memory_file import MemoryFile
from membridge.merge.report import Source
from membridge.merge.search_index import Parts
from schemas.identity import NodeId
from tests.fixtures.databases import NEW, OLD, connect, execute, make_database, rows_of


def soon() -> Deadline:
    """Return a deadline that nothing here needs."""
    return Deadline.after(60.0)


def built(path: Path, target: Path) -> Path:
    """Return a database that is built of another one's memory, on another machine."""
    state = target.with_suffix(".memory")
    with closing(MemoryFile(state, deadline=soon(), building=True)) as memory:
        fill(memory, path, is_live=True, deadline=soon())
        schema = memory.schema()
    build(state, schema, target, source=Source(NodeId("b")), deadline=soon())
    return target


def check_searchable(path: Path) -> int:
    """Let SQLite compare every search index with the rows that it is of; return how many there are."""
    names = rows_of(path, "SELECT name FROM sqlite_schema WHERE sql LIKE '%USING fts5%'")
    for (name,) in names:
        execute(path, f"INSERT INTO {name}({name}, rank) VALUES ('integrity-check', 1)")
    return len(names)


def schema_of(path: Path) -> set[tuple[Value, ...]]:
    """Return everything that the schema of a database names."""
    return set(rows_of(path, "SELECT type, name, tbl_name, sql FROM sqlite_schema"))


@pytest.mark.parametrize("version", [NEW, OLD])
def test_what_is_built_is_the_same_memory_in_a_database_of_the_same_version(tmp_path: Path, version: str) -> None:
    original = make_database(tmp_path / "claude-mem.db", version=version)
    other = built(original, tmp_path / "built.db")

    assert memory_rows(other) == memory_rows(original)
    assert schema_of(other) == schema_of(original)
    for pragma in ("page_size", "auto_vacuum", "user_version"):
        assert rows_of(other, f"PRAGMA {pragma}") == rows_of(original, f"PRAGMA {pragma}")
    for table in ("schema_versions", "sqlite_sequence ORDER BY name"):
        assert rows_of(other, f"SELECT * FROM {table}") == rows_of(original, f"SELECT * FROM {table}")
    assert rows_of(other, "PRAGMA integrity_check") == [("ok",)]
    assert rows_of(other, "PRAGMA foreign_key_check") == []


def test_the_search_index_finds_what_it_found_and_what_is_written_later(tmp_path: Path) -> None:
    original = make_database(tmp_path / "claude-mem.db")
    other = built(original, tmp_path / "built.db")
    search = "SELECT rowid FROM observations_fts WHERE observations_fts MATCH ? ORDER BY rowid"
    ((word,),) = rows_of(original, "SELECT substr(title, 1, instr(title || ' ', ' ') - 1) FROM observations LIMIT 1")

    assert rows_of(other, search, (f'"{word}"',)) == rows_of(original, search, (f'"{word}"',)) != []
    assert check_searchable(other) == 3
    execute(other, "UPDATE observations SET title = 'zyzzyva' WHERE id = 3")
    assert rows_of(other, search, ("zyzzyva",)) == [(3,)]
    assert check_searchable(other) == 3
    assert [path.name for path in tmp_path.glob("built.db?*")] == []


@pytest.mark.parametrize("version", [NEW, OLD])
def test_the_search_indexes_come_in_two_parts_that_keep_the_options_of_the_database(
    tmp_path: Path, version: str
) -> None:
    original = make_database(tmp_path / "claude-mem.db", version=version)
    other = built(original, tmp_path / "built.db")

    assert rows_of(other, "SELECT count(DISTINCT segid) FROM observations_fts_idx") == [(2,)]
    assert rows_of(other, "SELECT k, v FROM observations_fts_config") == [("version", 4)]
    assert check_searchable(other) == 3


@pytest.mark.parametrize("first", ["the search indexes", "all else"])
def test_either_thread_merges_the_first_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: str) -> None:
    done, helped = Event(), list[bool]()
    make, help_out = Parts.make, Parts.help_out

    def first_made(parts: Parts, *, deadline: Deadline) -> None:
        make(parts, deadline=deadline)
        done.set()

    def late(parts: Parts, *, deadline: Deadline) -> bool:
        is_main = not current_thread().name.startswith("beside")
        # What comes first has the first part to itself.
        if is_main == (first == "the search indexes"):
            assert done.wait(30)
        helped.append(is_main and help_out(parts, deadline=deadline))
        if is_main:
            done.set()
            return helped[-1]
        return help_out(parts, deadline=deadline)

    monkeypatch.setattr(Parts, "help_out", late)
    if first == "the search indexes":
        monkeypatch.setattr(Parts, "make", first_made)
    original = make_database(tmp_path / "claude-mem.db")
    other = built(original, tmp_path / "built.db")

    assert any(helped) == (first == "all else")
    assert rows_of(other, "SELECT count(DISTINCT segid) FROM observations_fts_idx") == [(2,)]
    assert check_searchable(other) == 3


def test_what_fails_in_the_thread_of_the_search_indexes_ends_the_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = make_database(tmp_path / "claude-mem.db")
    monkeypatch.setattr(search_index, "_insert", lambda *_: "INSERT INTO nowhere VALUES (1)")

    with pytest.raises(DatabaseInvalidError, match="nowhere"):
        built(original, tmp_path / "built.db")
    assert [path.name for path in tmp_path.glob("built.db-search*")] == []


def test_indexes_take_no_more_room_for_being_made_of_a_narrow_copy(tmp_path: Path) -> None:
    original = make_database(tmp_path / "claude-mem.db")
    other = built(original, tmp_path / "built.db")

    ((room,),) = rows_of(other, "PRAGMA freelist_count")
    ((pages,),) = rows_of(other, "PRAGMA page_count")
    assert int(str(room)) <= int(str(pages)) // 20
    execute(original, "VACUUM")
    assert rows_of(original, "PRAGMA page_count") >= [(int(str(pages)) * 9 // 10,)]


def test_a_row_that_lacks_what_its_table_demands_is_found_too(tmp_path: Path) -> None:
    original = make_database(tmp_path / "claude-mem.db")
    state, other = tmp_path / "state.memory", tmp_path / "built.db"
    with closing(MemoryFile(state, deadline=soon(), building=True)) as memory:
        fill(memory, original, is_live=True, deadline=soon())
        memory.connection.run("UPDATE observations SET type = NULL, title = 'zyzzyva' WHERE rowid IN (3, 9)")
        schema = memory.schema()
    build(state, schema, other, source=Source(NodeId("b")), deadline=soon())

    found = rows_of(other, "SELECT rowid FROM observations_fts WHERE observations_fts MATCH 'zyzzyva' ORDER BY rowid")
    assert found == [(3,), (9,)]
    assert check_searchable(other) == 3


def test_rows_anywhere_are_in_every_index(tmp_path: Path) -> None:
    original = make_database(tmp_path / "claude-mem.db")
    state, other = tmp_path / "state.memory", tmp_path / "built.db"
    with closing(MemoryFile(state, deadline=soon(), building=True)) as memory:
        fill(memory, original, is_live=True, deadline=soon())
        count = memory.connection.number("SELECT count(*) FROM observations")
        assert count > 310  # more than are copied at once
        lowest, highest = -(1 << 63), (1 << 63) - 1
        for old, new in ((1, highest), (2, highest - 1), (4, lowest), (5, -1), (6, 0)):
            memory.connection.run("UPDATE observations SET rowid = ? WHERE rowid = ?", (new, old))
        memory.connection.run("UPDATE observations SET type = NULL WHERE rowid IN (-1, 300, 301, ?)", (highest,))
        schema = memory.schema()
    build(state, schema, other, source=Source(NodeId("b")), deadline=soon())

    assert rows_of(other, "PRAGMA integrity_check") == [("ok",)]
    indexes = rows_of(other, "SELECT name FROM pragma_index_list('observations') WHERE NOT partial")
    assert len(indexes) > 8
    for (name,) in indexes:
        assert rows_of(other, f"SELECT count(*) FROM observations INDEXED BY {name}") == [(count,)]
    assert check_searchable(other) == 3


@pytest.mark.parametrize(
    "odd",
    [
        "content_hash, content='observations', content_rowid='id'",
        "title, content='observations', content_rowid='discovery_tokens'",
        "title, narrative, content=observations",
        "title",
    ],
)
def test_a_search_index_of_another_kind_is_of_the_rows_too(tmp_path: Path, odd: str) -> None:
    original = make_database(tmp_path / "claude-mem.db")
    execute(original, "UPDATE observations SET discovery_tokens = id + 1000")
    execute(original, f"CREATE VIRTUAL TABLE odd_fts USING fts5({odd})")

    other = built(original, tmp_path / "built.db")

    assert check_searchable(other) == 4
    ((size,),) = rows_of(other, "SELECT count(*) FROM odd_fts_docsize")
    assert size == (0 if odd == "title" else rows_of(other, "SELECT count(*) FROM observations")[0][0])


def test_what_belongs_to_the_machine_and_what_was_deleted_does_not_travel(tmp_path: Path) -> None:
    original = make_database(tmp_path / "claude-mem.db")
    with closing(connect(original)) as worker:
        worker.execute("UPDATE observations SET narrative = 'marker-of-a-forgotten-memory' WHERE id = 5")
        worker.execute("DELETE FROM observations WHERE id = 5")
        worker.execute(
            "INSERT INTO pending_messages (session_db_id, content_session_id, message_type, tool_input, "
            "created_at_epoch) VALUES (1, 'c', 'observation', 'marker-of-a-pending-message', 1)"
        )
        worker.execute("INSERT INTO sync_state VALUES ('k', 'marker-of-the-sync')")

    other = built(original, tmp_path / "built.db")

    assert b"marker-of" not in (tmp_path / "built.memory").read_bytes()
    assert b"marker-of" not in other.read_bytes()
    assert rows_of(other, "SELECT count(*) FROM pending_messages") == [(0,)]


def test_tables_and_columns_of_a_newer_version_travel(tmp_path: Path) -> None:
    original = make_database(tmp_path / "claude-mem.db")
    execute(
        original, "ALTER TABLE observations ADD COLUMN mood TEXT; UPDATE observations SET mood = 'calm' WHERE id < 9"
    )
    execute(
        original, "CREATE TABLE moods (id INTEGER PRIMARY KEY, name TEXT UNIQUE, session_db_id INTEGER, weight REAL)"
    )
    execute(original, "INSERT INTO moods (name, session_db_id, weight) VALUES ('calm', 7, 0.5), ('odd', 9999, 2.0)")

    other = built(original, tmp_path / "built.db")

    assert memory_sum(other) == memory_sum(original)
    assert rows_of(other, "SELECT name, session_db_id, weight FROM moods ORDER BY id") == [
        ("calm", 7, 0.5),
        ("odd", None, 2),
    ]


def test_text_that_is_not_utf_8_and_blobs_survive_the_way(tmp_path: Path) -> None:
    original = make_database(tmp_path / "claude-mem.db")
    execute(original, "UPDATE observations SET narrative = CAST(x'ff00fe' AS TEXT), facts = x'00ff' WHERE id = 4")

    other = built(original, tmp_path / "built.db")

    found = rows_of(other, "SELECT CAST(narrative AS BLOB), facts FROM observations WHERE id = 4")
    assert found == [(b"\xff\x00\xfe", b"\x00\xff")]
