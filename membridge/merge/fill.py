"""Fill an empty memory file with what a database of claude-mem holds, at the speed of SQLite.

Rows are copied by statements, references as natural keys; a row that is there twice comes once. Text that is not UTF-8
stays as it is and travels as bytes; a row whose key is not text names nothing on any machine and is left out.
"""

from pathlib import Path

from membridge.aio.deadline import Deadline
from membridge.claudemem import canonical
from membridge.claudemem.connection import check_is_claude_mem, frozen_uri, prepare, resolve
from membridge.claudemem.sql import Connection
from membridge.claudemem.tables import CARRIED_COLUMNS, Table, expression, quoted, travelling_tables
from membridge.claudemem.translate import translated
from membridge.merge.memory_file import MemoryFile
from membridge.merge.row_stream import origin_of, schema_of
from membridge.merge.rows import Reader

#: The name under which the database is attached.
_SOURCE = "source"


def fill(memory: MemoryFile, database: Path, *, is_live: bool, deadline: Deadline) -> None:
    """Fill an empty `memory` that is being built; its rows are not counted.

    `database` is the live one, or a file that no program writes. Errors: the two databases'.
    """
    connection, real = memory.connection, resolve(database)
    with translated(database):
        if is_live:
            prepare(connection, real, deadline=deadline)
        connection.run(f"ATTACH ? AS {_SOURCE}", (str(real) if is_live else frozen_uri(real),))
        check_is_claude_mem(connection, database, schema=_SOURCE)
        tables = travelling_tables(connection, _SOURCE)
        connection.run("BEGIN")
        memory.know(schema_of(connection, _SOURCE), {name: origin_of(table) for name, table in tables.items()})
        for table in tables.values():
            _copy(connection, table)
        connection.run("COMMIT")
        connection.run(f"DETACH {_SOURCE}")
    with translated(memory.path):
        memory.index()
        for table in travelling_tables(connection).values():
            if not table.unique:
                _remove_twins(memory, table)


def _copy(connection: Connection, table: Table) -> None:
    columns = (*table.travelling, *(column for column in CARRIED_COLUMNS if table.has(column)))
    values = ", ".join(expression(table, column, alias="t", schema=_SOURCE) for column in columns)
    names = ", ".join(map(quoted, ("rowid", *columns)))
    texts = " AND ".join(f"typeof(t.{quoted(column)}) <> 'blob'" for column in table.key if table.has(column))
    connection.run(
        f"INSERT INTO main.{quoted(table.name)} ({names}) SELECT t.rowid, {values} "  # noqa: S608 - names from the schema, quoted
        f"FROM {_SOURCE}.{quoted(table.name)} t WHERE {texts or '1'}"
    )


def _remove_twins(memory: MemoryFile, table: Table) -> None:
    """Keep one of rows that are equal in all that travels."""
    connection, reader = memory.connection, Reader(memory.connection, table)
    key = ", ".join(quoted(column) for column in table.key if table.has(column))
    crowded = f"SELECT min(rowid) FROM {quoted(table.name)} GROUP BY {key} HAVING count(*) > 1"  # noqa: S608 - as above
    for rowid in connection.numbers(crowded):
        named, seen = reader.key(rowid), set[bytes]()
        for row in reader.bucket(named) if named is not None else ():
            raw = canonical.encode(table, row.values)
            if raw in seen:
                connection.run(f"DELETE FROM {quoted(table.name)} WHERE rowid = ?", (row.rowid,))  # noqa: S608 - as above
            seen.add(raw)
