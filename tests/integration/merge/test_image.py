"""An image of a memory is the same memory elsewhere; what is none, or says what is not so, is refused."""

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
import zstandard

from membridge.aio.deadline import Deadline
from membridge.claudemem.connection import open_live
from membridge.claudemem.memory import memory_rows
from membridge.merge import image
from membridge.merge.fill import fill
from membridge.merge.image import MAGIC, MalformedImageError, pack, unpack
from membridge.merge.memory_file import MemoryFile, OtherMemoryError
from membridge.merge.memory_schema import OtherSchemaError
from membridge.merge.row_delta import delta_of
from tests.fixtures.databases import execute, rows_of
from tests.integration.merge.test_memory_file import all_keys


def soon() -> Deadline:
    """Return a deadline that nothing here needs."""
    return Deadline.after(60.0)


@pytest.fixture
def memory(claude_mem_copy: Path) -> Iterator[MemoryFile]:
    """Give a memory that was just filled."""
    with closing(MemoryFile(claude_mem_copy.with_name("a.memory"), deadline=soon(), building=True)) as memory:
        fill(memory, claude_mem_copy, is_live=True, deadline=soon())
        yield memory


def arrived(memory: MemoryFile) -> Path:
    """Return the file that somebody else makes of the image of a memory."""
    packed, target = memory.path.with_suffix(".packed"), memory.path.with_name("b.memory")
    pack(memory, packed)
    with packed.open("rb") as source:
        unpack(source, target, size_bytes=memory.size_bytes(), deadline=soon()).close()
    return target


def rows_in(path: Path) -> dict[str, dict[int, bytes]]:
    """Return the rows of a memory file by table and rowid."""
    found: dict[str, dict[int, bytes]] = {}
    with closing(MemoryFile(path, deadline=soon())) as memory:
        memory.check()
        for row in memory.sent():
            found.setdefault(row.table, {})[row.rowid] = row.canonical
    return found


def test_an_image_holds_the_memory_and_nothing_of_the_machine(memory: MemoryFile, claude_mem_copy: Path) -> None:
    memory.note(b"a position of this machine")
    target = arrived(memory)

    found = {name: set(rows.values()) for name, rows in rows_in(target).items()}
    assert found == {name: rows for name, rows in memory_rows(claude_mem_copy).items() if rows}
    with closing(MemoryFile(target, deadline=soon())) as other:
        assert (other.digest(), other.rows(), other.position()) == (memory.digest(), memory.rows(), b"")
        assert other.schema() == memory.schema()


def test_a_memory_that_took_in_columns_and_tables_has_the_schema_that_it_should(
    memory: MemoryFile, claude_mem_copy: Path
) -> None:
    execute(claude_mem_copy, "ALTER TABLE observations ADD COLUMN mood TEXT; UPDATE observations SET mood = 'calm'")
    execute(claude_mem_copy, "ALTER TABLE observations ADD COLUMN of_session INTEGER REFERENCES sdk_sessions(id)")
    execute(claude_mem_copy, 'CREATE TABLE moods (id INTEGER PRIMARY KEY, name TEXT UNIQUE, "a ""word" TEXT)')
    execute(claude_mem_copy, "INSERT INTO moods (name) VALUES ('odd')")
    memory.note_counted(memory.counted())
    with open_live(claude_mem_copy, deadline=soon()) as live:
        memory.begin()
        memory.take_in(list(delta_of(memory, live, all_keys(memory, claude_mem_copy))))
        memory.commit(b"")

    found = {name: set(rows.values()) for name, rows in rows_in(arrived(memory)).items()}

    assert found == {name: rows for name, rows in memory_rows(claude_mem_copy).items() if rows}


@pytest.mark.parametrize(
    "change",
    [
        "CREATE TRIGGER t AFTER INSERT ON observations BEGIN DELETE FROM sdk_sessions; END",
        "CREATE VIEW v AS SELECT 1",
        "CREATE TABLE more (a)",
        "CREATE INDEX i ON observations (json_extract(facts, '$.a'))",
        "CREATE INDEX i ON observations (title) WHERE title > 'a'",
        "CREATE VIRTUAL TABLE f USING fts5(a)",
        "ALTER TABLE observations ADD COLUMN g AS (upper(title))",
        "ALTER TABLE observations ADD COLUMN g DEFAULT 1",
        "ALTER TABLE observations RENAME COLUMN title TO heading",
        "DROP TABLE user_prompts",
        "DELETE FROM membridge_tables WHERE name = 'observations'",
        "UPDATE membridge_tables SET origin = x'00' WHERE name = 'observations'",
        "UPDATE membridge_tables SET name = CAST(x'ff' AS TEXT) WHERE name = 'observations'",
        "PRAGMA user_version = 2",
    ],
)
def test_a_file_with_another_schema_than_its_tables_lead_to_is_refused(memory: MemoryFile, change: str) -> None:
    execute(memory.path, f"PRAGMA foreign_keys = OFF; {change}")

    with pytest.raises(OtherSchemaError):
        arrived(memory)


@pytest.mark.parametrize("pages", [1, 2, 3, 7, 8])
def test_the_parts_of_an_image_lie_where_they_should(
    memory: MemoryFile, monkeypatch: pytest.MonkeyPatch, pages: int
) -> None:
    monkeypatch.setattr(image, "PART", pages * 4096)

    target = arrived(memory)

    assert target.read_bytes() == memory.path.read_bytes()
    assert memory.size_bytes() > 20 * image.PART


def test_a_memory_that_lost_a_row_has_no_image(memory: MemoryFile) -> None:
    packed = memory.path.with_suffix(".packed")
    pack(memory, packed)
    noted = memory.digest(), memory.rows()
    memory.connection.run("DELETE FROM observations WHERE rowid = (SELECT max(rowid) FROM observations)")

    with pytest.raises(OtherMemoryError):
        pack(memory, packed)

    assert (memory.digest(), memory.rows()) == noted


def cut(raw: bytes) -> bytes:
    return raw[:-100]


def altered(raw: bytes) -> bytes:
    at = len(raw) // 2
    return raw[:at] + bytes([raw[at] ^ 0x10]) + raw[at + 1 :]


def longer(raw: bytes) -> bytes:
    """Make the first part hold more than a part may."""
    length, start = int.from_bytes(raw[len(MAGIC) :][:4], "little"), len(MAGIC) + 4
    content = zstandard.ZstdDecompressor().decompress(raw[start : start + length])
    more = zstandard.ZstdCompressor().compress(content + bytes(1 << 28))
    return MAGIC + len(more).to_bytes(4, "little") + more + raw[start + length :]


def one_more(raw: bytes) -> bytes:
    part = zstandard.ZstdCompressor().compress(bytes(1 << 20))
    return raw + len(part).to_bytes(4, "little") + part


def without_sums(raw: bytes) -> bytes:
    """Leave out the end, which says what the rows add up to."""
    at = len(MAGIC)
    while (end := at + 4 + int.from_bytes(raw[at:][:4], "little")) < len(raw):
        at = end
    return raw[:at]


def other_sums(raw: bytes) -> bytes:
    """Let the end say something that no number of rows is."""
    end = msgspec.msgpack.encode(["tail", {"observations": -1}, {"observations": bytes(32)}])
    return without_sums(raw) + len(end).to_bytes(4, "little") + end


def endless(raw: bytes) -> bytes:
    return MAGIC + b"\xff\xff\xff\xff" + raw[len(MAGIC) + 4 :]


@pytest.mark.parametrize(
    "damage",
    [
        cut,
        altered,
        longer,
        one_more,
        endless,
        without_sums,
        other_sums,
        lambda _: b"",
        lambda _: b"something else",
        lambda raw: raw[: len(MAGIC)],
    ],
)
def test_bytes_that_are_not_the_image_of_that_size_are_refused_before_they_fill_the_disk(
    memory: MemoryFile, damage: Callable[[bytes], bytes]
) -> None:
    packed, target = memory.path.with_suffix(".packed"), memory.path.with_name("b.memory")
    pack(memory, packed)
    packed.write_bytes(damage(packed.read_bytes()))

    with packed.open("rb") as source, pytest.raises(MalformedImageError):
        unpack(source, target, size_bytes=memory.size_bytes(), deadline=soon())

    assert target.stat().st_size <= memory.size_bytes() + (1 << 20)


def test_a_copy_of_a_mirror_in_use_keeps_its_rows_and_rowids(memory: MemoryFile, claude_mem_copy: Path) -> None:
    memory.note_counted(memory.counted())
    memory.settle()
    execute(claude_mem_copy, "DELETE FROM observations WHERE id % 3 = 0")
    with open_live(claude_mem_copy, deadline=soon()) as live:
        memory.begin()
        memory.take_in(list(delta_of(memory, live, all_keys(memory, claude_mem_copy))))
        memory.commit(b"1")
    copy = memory.path.with_name("copy.memory")
    memory.copy_to(copy, deadline=soon())
    with closing(MemoryFile(copy, deadline=soon(), building=True)) as staged:
        target = arrived(staged)

    assert rows_in(target) == rows_in(memory.path)
    assert rows_of(target, "PRAGMA integrity_check") == [("ok",)]
