"""The search indexes of a database that is being built: they take as long as all else, so they are made beside it.

An index (FTS5, external content) is made in a file of its own from the rows of the memory file, by a thread of its own,
and its tables are copied when both are ready. One whose text is not as it stands in the memory file is made from the
database's rows afterwards.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from membridge.aio.deadline import Deadline
from membridge.claudemem.connection import open_to_build
from membridge.claudemem.sql import Bindings, Connection
from membridge.claudemem.tables import Table, quoted

#: MiB of new text that an index gathers before it writes a part; the default of one makes many small parts.
_PART = 2
_DEFAULT_PART = 1
#: Bytes of a page of the file that an index is made in. Larger ones than the database's are fewer reads and writes.
_PAGE = 16 << 10
#: More parts than there will be.
_NEVER = 1_000_000
#: The tables that FTS5 keeps an index in; its options stay those of the database.
_KEPT_IN = ("data", "idx", "docsize")
_ROWID = re.compile(r"\bcontent_rowid\s*=\s*['\"]?(\w+)", re.IGNORECASE)
_CONTENT = re.compile(r"\bcontent\s*=\s*['\"]?(\w+)", re.IGNORECASE)
_FTS5 = re.compile(r"\busing\s+fts5\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class SearchIndex:
    """A search index: its name and statement, the table whose text it has, and its columns.

    `by_rowid`: the number of a text is the rowid of its row.
    """

    name: str
    sql: str
    table: str
    columns: tuple[str, ...]
    by_rowid: bool


@dataclass(frozen=True, slots=True)
class Rows:
    """Which rows of a memory file become rows of the database, as the condition of a query with `t` as the table."""

    condition: str
    bindings: Bindings


def search_index(connection: Connection, name: str, sql: str) -> SearchIndex | None:
    """Return a virtual table, which is there, as a search index; None for one of another kind."""
    content = _CONTENT.search(sql)
    if not _FTS5.search(sql) or content is None:
        return None
    columns = connection.texts("SELECT name FROM pragma_table_info(?)", (name,))
    rowid = _ROWID.search(sql)
    alias = "SELECT 1 FROM pragma_table_info(?) WHERE name = ? AND pk = 1 AND upper(type) = 'INTEGER'"
    by_rowid = rowid is None or connection.exists(alias, (content[1], rowid[1]))
    return SearchIndex(name, sql, content[1], tuple(columns), by_rowid)


def is_as_it_stands(index: SearchIndex, table: Table, known: Table) -> bool:
    """Whether the text of an index of `table` is that of `known`, the memory file's table, without a change."""
    plain = [column for column in table.travelling if column not in table.references]
    return index.by_rowid and all(column in plain and known.has(column) for column in index.columns)


def make(path: Path, state: Path, indexes: Mapping[SearchIndex, Rows], *, deadline: Deadline) -> None:
    """Make indexes in a file of their own from the rows of the memory file `state`. Blocking."""
    with open_to_build(path, state, deadline=deadline) as connection:
        connection.run(f"PRAGMA main.page_size = {_PAGE}")
        connection.run("BEGIN")
        for index, rows in indexes.items():
            connection.run(index.sql)
            columns = ", ".join(f"t.{quoted(column)}" for column in index.columns)
            source = f"FROM state.{quoted(index.table)} t WHERE {rows.condition} ORDER BY t.rowid"
            _set(connection, index.name, "hashsize", _PART << 20)
            # Parts that are joined once at the end are read and written once. Left as they are, the memories that come
            # next would join some of them.
            _set(connection, index.name, "automerge", 0)
            _set(connection, index.name, "crisismerge", _NEVER)
            connection.run(_insert(index, f"SELECT t.rowid, {columns} {source}"), rows.bindings)
            _tell(connection, index.name, "optimize")
        connection.run("COMMIT")


def copy(connection: Connection, schema: str, index: SearchIndex) -> None:
    """Copy an index of the attached file `schema` over the empty one that the database has."""
    for kind in _KEPT_IN:
        table = quoted(f"{index.name}_{kind}")
        connection.run(f"DELETE FROM main.{table}")  # noqa: S608 - quoted
        connection.run(f"INSERT INTO main.{table} SELECT * FROM {schema}.{table}")  # noqa: S608 - quoted


def add(connection: Connection, index: SearchIndex, rowid: int) -> None:
    """Add a row of the database to an index that lacks it."""
    columns = ", ".join(map(quoted, index.columns))
    connection.run(_insert(index, f"SELECT rowid, {columns} FROM main.{quoted(index.table)} WHERE rowid = ?"), (rowid,))  # noqa: S608 - quoted


def rebuild(connection: Connection, name: str) -> None:
    """Make an index from the database's rows."""
    _set(connection, name, "hashsize", _PART << 20)
    _tell(connection, name, "rebuild")
    _tell(connection, name, "optimize")
    _set(connection, name, "hashsize", _DEFAULT_PART << 20)


def _tell(connection: Connection, name: str, command: str) -> None:
    connection.run(f"INSERT INTO {quoted(name)} ({quoted(name)}) VALUES (?)", (command,))  # noqa: S608 - quoted


def _set(connection: Connection, name: str, option: str, value: int) -> None:
    connection.run(f"INSERT INTO {quoted(name)} ({quoted(name)}, rank) VALUES (?, ?)", (option, value))  # noqa: S608 - quoted


def _insert(index: SearchIndex, rows: str) -> str:
    return f"INSERT INTO main.{quoted(index.name)} (rowid, {', '.join(map(quoted, index.columns))}) {rows}"
