"""A memory as a stream of rows, and the database that is built of it."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from membridge.aio.deadline import Deadline
from membridge.claudemem.memory import memory_rows, memory_sum
from membridge.claudemem.sql import Value
from membridge.merge.build import build
from membridge.merge.fill import fill
from membridge.merge.memory_file import MemoryFile
from membridge.merge.report import Source
from membridge.merge.row_stream import BLOCK, MAGIC, Head, MalformedStreamError, Sent, Tail, decode, encode
from schemas.identity import NodeId
from tests.fixtures.databases import NEW, OLD, connect, execute, make_database, rows_of


def soon() -> Deadline:
    """Return a deadline that nothing here needs."""
    return Deadline.after(60.0)


def streamed(path: Path) -> bytes:
    """Return the memory of a live database as a stream."""
    state = path.with_name("streamed.memory")
    state.unlink(missing_ok=True)
    with closing(MemoryFile(state, deadline=soon(), building=True)) as memory:
        return b"".join(encode(fill(memory, path, is_live=True, deadline=soon())))


def built(path: Path, target: Path) -> Path:
    """Return a database that is built of another one's stream, on another machine."""
    state = target.with_suffix(".memory")
    with closing(MemoryFile(state, deadline=soon(), building=True)) as memory:
        memory.take_in(decode([streamed(path)]))
        build(state, memory.schema(), target, source=Source(NodeId("b")), deadline=soon())
    return target


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
    execute(other, "INSERT INTO observations_fts(observations_fts, rank) VALUES ('integrity-check', 1)")
    execute(other, "UPDATE observations SET title = 'zyzzyva' WHERE id = 3")
    assert rows_of(other, search, ("zyzzyva",)) == [(3,)]


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

    raw = b"".join(sent.canonical for sent in decode([streamed(original)]) if isinstance(sent, Sent))
    other = built(original, tmp_path / "built.db")

    assert b"marker-of" not in raw
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


def pieces(raw: bytes, size: int) -> Iterator[bytes]:
    """Yield bytes in pieces."""
    return (raw[at : at + size] for at in range(0, len(raw), size))


def test_a_stream_is_read_in_pieces_of_any_size(claude_mem_copy: Path) -> None:
    raw = streamed(claude_mem_copy)
    whole = list(decode([raw]))

    assert isinstance(whole[0], Head)
    assert isinstance(whole[-1], Tail)
    for size in (1, 7, 4_096, BLOCK):
        assert list(decode(pieces(raw, size))) == whole


@pytest.mark.parametrize("damage", ["cut off", "a byte", "its end is missing", "something else", "nothing"])
def test_a_stream_that_is_not_whole_is_refused(claude_mem_copy: Path, damage: str) -> None:
    raw = bytearray(streamed(claude_mem_copy))
    if damage == "cut off":
        del raw[-100:]
    elif damage == "a byte":
        raw[len(raw) // 2] ^= 0x10
    elif damage == "its end is missing":
        raw = bytearray(without_its_end(bytes(raw)))
    else:
        raw = bytearray(b"something else" if damage == "something else" else b"")

    with pytest.raises(MalformedStreamError):
        list(decode([bytes(raw)]))


def without_its_end(raw: bytes) -> bytes:
    """Return a stream that is compressed soundly but lacks its last message."""
    import zstandard  # noqa: PLC0415 - for this one alone

    content = zstandard.ZstdDecompressor().decompressobj().decompress(raw[len(MAGIC) :])
    at, last = 0, 0
    while at < len(content):
        last, at = at, at + 4 + int.from_bytes(content[at : at + 4], "little")
    return MAGIC + zstandard.ZstdCompressor().compress(content[:last])
