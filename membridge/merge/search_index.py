"""The search indexes of a database that is being built: they take longer than all else, so they are made beside it.

An index (FTS5, external content) is made from the rows of the memory file, by a thread of its own, in two parts, each a
file. `search_parts` joins them in the database. One whose text is not as it stands in the memory file is made from the
database's rows afterwards.
"""

import re
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from membridge.aio.deadline import Deadline
from membridge.claudemem.connection import open_to_build
from membridge.claudemem.sql import Bindings, Connection
from membridge.claudemem.tables import Table, quoted

#: MiB of new text that an index gathers before it writes it; the default of one makes many small pieces.
_GATHERED = 2
_DEFAULT_GATHERED = 1
#: Bytes of a page of the file that an index is made in. Larger ones than the database's are fewer reads and writes.
_PAGE = 16 << 10
#: More pieces than there will be.
_NEVER = 1_000_000
#: Percent of the rows in the first part. The thread that merges and copies it is done with the indexes when four fifths
#: of the words are gathered.
_FIRST = 55
#: KiB of the cache of the memory file, which is read once, from its begin to its end.
_CACHE = 256
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


class Parts:
    """Search indexes in the making, in two files, each with a part of the rows of the memory file `state`.

    `make` is for one thread. It gathers the words of both parts; to merge what was gathered takes a quarter of the
    time. `help_out` merges the first part in another thread, if that comes in time.
    """

    def __init__(self, paths: tuple[Path, Path], state: Path, indexes: Mapping[SearchIndex, Rows]) -> None:
        self._paths, self._state, self._indexes = paths, state, indexes
        self._first = Future[None]()
        self._merging = Lock()

    def make(self, *, deadline: Deadline) -> None:
        """Make both parts. Blocking."""
        first, second = self._paths
        try:
            self._gather(first, "<", deadline)
        except BaseException as error:
            self._first.set_exception(error)
            raise
        self._first.set_result(None)
        self._gather(second, ">=", deadline)
        self._merge(second, deadline)
        self.help_out(deadline=deadline)

    def help_out(self, *, deadline: Deadline) -> bool:
        """Merge the first part, or return False if the other thread does. Blocking. Errors: those of `make` too."""
        self._first.result()
        if not self._merging.acquire(blocking=False):
            return False
        self._merge(self._paths[0], deadline)
        return True

    def _gather(self, path: Path, side: str, deadline: Deadline) -> None:
        with open_to_build(path, self._state, deadline=deadline) as connection:
            connection.run(f"PRAGMA main.page_size = {_PAGE}; PRAGMA state.cache_size = -{_CACHE}; BEGIN")
            for index, rows in self._indexes.items():
                connection.run(index.sql)
                _set(connection, index.name, "hashsize", _GATHERED << 20)
                # What is merged once at the end is read and written once. Left as it is, the memories that come next
                # would merge some of it.
                _set(connection, index.name, "automerge", 0)
                _set(connection, index.name, "crisismerge", _NEVER)
                columns = ", ".join(f"t.{quoted(column)}" for column in index.columns)
                source = f"FROM state.{quoted(index.table)} t WHERE t.rowid {side} {_cut(connection, index)}"
                wanted = f"SELECT t.rowid, {columns} {source} AND {rows.condition} ORDER BY t.rowid"
                connection.run(_insert(index, wanted), rows.bindings)
            connection.run("COMMIT")

    def _merge(self, path: Path, deadline: Deadline) -> None:
        with open_to_build(path, self._state, deadline=deadline) as connection:
            # A journal would hold what is merged, and of a file that fails nothing is used.
            connection.run("PRAGMA main.journal_mode = OFF; BEGIN")
            for index in self._indexes:
                _tell(connection, index.name, "optimize")
            connection.run("COMMIT")


def add(connection: Connection, index: SearchIndex, rowid: int) -> None:
    """Add a row of the database to an index that lacks it."""
    columns = ", ".join(map(quoted, index.columns))
    connection.run(_insert(index, f"SELECT rowid, {columns} FROM main.{quoted(index.table)} WHERE rowid = ?"), (rowid,))  # noqa: S608 - quoted


def rebuild(connection: Connection, name: str) -> None:
    """Make an index from the database's rows."""
    _set(connection, name, "hashsize", _GATHERED << 20)
    _tell(connection, name, "rebuild")
    _tell(connection, name, "optimize")
    _set(connection, name, "hashsize", _DEFAULT_GATHERED << 20)


def _cut(connection: Connection, index: SearchIndex) -> int:
    """Return the first rowid of the second part."""
    table = quoted(index.table)
    first = connection.number(f"SELECT min(rowid) FROM state.{table}")  # noqa: S608 - quoted
    last = connection.number(f"SELECT max(rowid) FROM state.{table}")  # noqa: S608 - quoted
    return first + (last - first + 1) * _FIRST // 100


def _tell(connection: Connection, name: str, command: str) -> None:
    connection.run(f"INSERT INTO {quoted(name)} ({quoted(name)}) VALUES (?)", (command,))  # noqa: S608 - quoted


def _set(connection: Connection, name: str, option: str, value: int) -> None:
    connection.run(f"INSERT INTO {quoted(name)} ({quoted(name)}, rank) VALUES (?, ?)", (option, value))  # noqa: S608 - quoted


def _insert(index: SearchIndex, rows: str) -> str:
    return f"INSERT INTO main.{quoted(index.name)} (rowid, {', '.join(map(quoted, index.columns))}) {rows}"
