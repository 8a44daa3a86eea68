"""Indexes that are made of a narrow copy of their table are those that SQLite makes of the table."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import apsw
import pytest

from membridge.claudemem.sql import Connection, RowRefusedError
from membridge.merge import indexes

TABLE = """CREATE TABLE memories (
    id INTEGER PRIMARY KEY AUTOINCREMENT, text TEXT NOT NULL, "two words" VARCHAR(10) COLLATE NOCASE, amount REAL,
    number NUMERIC, any, odd "not null", trimmed TEXT COLLATE RTRIM, blob BLOB DEFAULT x'00', length INTEGER,
    doubled INTEGER GENERATED ALWAYS AS (length * 2) STORED, UNIQUE (text)
)"""
MADE = (
    "CREATE INDEX i_text ON memories(text)",
    "CREATE INDEX i_amount ON memories (amount DESC, number ASC)",
    "CREATE INDEX i_number ON memories(number)",
    "CREATE INDEX i_any\n  ON memories ( any , odd )\n",
    'CREATE INDEX "i_odd" ON "memories" ("odd")',
    "CREATE INDEX i_trimmed ON memories(trimmed)",
    "CREATE UNIQUE INDEX i_some ON memories(length, blob) WHERE length IS NOT NULL",
    "CREATE INDEX i_none ON memories(text, trimmed desc) where any is null",
)
OTHERS = (
    'CREATE INDEX i_words ON memories("two words")',
    "CREATE INDEX i_id ON memories(id)",
    "CREATE INDEX i_doubled ON memories(doubled)",
    "CREATE INDEX i_lower ON memories(lower(text))",
    "CREATE INDEX i_nocase ON memories(text COLLATE NOCASE)",
    "CREATE INDEX i_long ON memories(text) WHERE length > 4",
    "CREATE INDEX i_few ON few(name)",
    "CREATE INDEX i_strict ON strict_ones(a)",
    "CREATE INDEX i_strict_b ON strict_ones(b)",
    "CREATE INDEX i_strict_ab ON strict_ones(a, b)",
    "CREATE INDEX i_keyed ON keyed(a)",
    "CREATE INDEX i_keyed_b ON keyed(b)",
    "CREATE INDEX i_keyed_ab ON keyed(b, a)",
)
ROWS = """WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000)
INSERT INTO memories (id, text, "two words", amount, number, any, odd, trimmed, blob, length)
SELECT i * 3, hex(randomblob(90)), iif(i % 2, 'Ab', 'aB') || (i % 7), i % 5, (i % 9) || '',
    iif(i % 3, (i % 11) || '', NULL), (i % 13) || '', 'x' || (i % 3) || iif(i % 2, '  ', ''),
    iif(i % 2, '1', x'31'), iif(i % 4, i || '', NULL) FROM n"""


@pytest.fixture(params=[0, 1, 2], ids=["no vacuum", "full vacuum", "incremental vacuum"])
def connection(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Connection]:
    """A database with tables that are filled and have no index."""
    with closing(apsw.Connection(str(tmp_path / "memories.db"))) as opened:
        opened.execute(f"PRAGMA auto_vacuum = {request.param}; BEGIN")
        opened.execute(f"{TABLE}; CREATE TABLE few (name TEXT); CREATE TABLE strict_ones (a ANY, b TEXT) STRICT")
        opened.execute("CREATE TABLE keyed (a TEXT PRIMARY KEY, b TEXT) WITHOUT ROWID")
        opened.execute(ROWS)
        opened.execute("INSERT INTO strict_ones SELECT number, text FROM memories")
        opened.execute("INSERT INTO keyed SELECT id, text FROM memories")
        yield Connection(opened)


def schema(connection: Connection) -> set[tuple[object, ...]]:
    """Return what the database says it has, without where it is."""
    return set[tuple[object, ...]](connection.rows("SELECT type, name, tbl_name, sql FROM sqlite_schema"))


def make(connection: Connection, statements: Sequence[str]) -> list[str]:
    """Make indexes of tables that are filled, in spans of rows; return the statements of those that were not made."""
    made = set[str]()
    for copy in indexes.copies(connection, statements):
        for span in ((-(1 << 63), -1), (0, 20), (21, 21), (22, 8999), (9000, (1 << 63) - 1)):
            copy.take(*span)
        made |= copy.make()
    return [sql for sql in statements if sql not in made]


def test_they_are_the_tables_and_sound_and_stay_so(connection: Connection) -> None:
    before = schema(connection)
    left = make(connection, [*OTHERS, *MADE])
    assert left == list(OTHERS)
    assert schema(connection) - before == {
        ("index", sql.split()[sql.split().index("INDEX") + 1].strip('"'), "memories", sql) for sql in MADE
    }
    for sql in left:
        connection.run(sql)
    connection.run("COMMIT")

    assert connection.texts("PRAGMA integrity_check") == ["ok"]
    connection.run("UPDATE memories SET text = text || 'x', amount = amount + 0.5, any = NULL WHERE id % 5 = 0")
    connection.run("DELETE FROM memories WHERE id % 7 = 0")
    connection.run(ROWS.replace("i * 3", "i * 3 + 1").replace("i || ''", "i + 90000"))
    assert connection.texts("PRAGMA integrity_check") == ["ok"]
    with pytest.raises(RowRefusedError):
        connection.write("INSERT INTO memories (text, length, blob) SELECT 'y', length, blob FROM memories", ())


def test_a_query_finds_by_them_what_it_finds_without(connection: Connection) -> None:
    assert make(connection, MADE) == []
    connection.run("COMMIT")

    for name, where in {
        "i_amount": "amount = 3",
        "i_number": "number = 7",
        "i_any": "any = '7' AND odd = 7",
        "i_trimmed": "trimmed = 'x1'",
        "i_some": "length = 401",
    }.items():
        query = "SELECT id FROM memories {} WHERE {} ORDER BY id"
        found = connection.numbers(query.format(f"INDEXED BY {name}", where))
        assert found == connection.numbers(query.format("NOT INDEXED", where)) != []


def test_another_connection_reads_them(connection: Connection, tmp_path: Path) -> None:
    make(connection, MADE)
    connection.run("COMMIT")

    with closing(apsw.Connection(str(tmp_path / "memories.db"))) as other:
        assert Connection(other).texts("PRAGMA integrity_check") == ["ok"]
        assert schema(Connection(other)) == schema(connection)


def test_if_rows_forbid_one_nothing_of_its_table_is_made(connection: Connection) -> None:
    connection.run("UPDATE memories SET length = 5, blob = 1 WHERE id IN (9, 12)")
    before = schema(connection)

    assert make(connection, [*MADE, *OTHERS]) == [*MADE, *OTHERS]
    assert schema(connection) == before
    for sql in MADE:
        if "i_some" not in sql:
            connection.run(sql)
    with pytest.raises(RowRefusedError):
        connection.write(next(sql for sql in MADE if "i_some" in sql), ())
    connection.run("COMMIT")
    assert connection.texts("PRAGMA integrity_check") == ["ok"]


def test_what_is_rolled_back_leaves_nothing(connection: Connection) -> None:
    connection.run("COMMIT")
    before = schema(connection)
    connection.run("BEGIN")
    make(connection, MADE)
    connection.run("ROLLBACK")

    assert schema(connection) == before
    assert connection.texts("PRAGMA integrity_check") == ["ok"]
