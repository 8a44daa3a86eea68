"""A database that claude-mem opens, built from a memory file where no claude-mem has ever run.

Tables first, then the rows by statements of SQLite, then indexes; meanwhile the search indexes are made in a file
beside it. What belongs to a machine is empty.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from membridge.aio import threads
from membridge.aio.deadline import Deadline
from membridge.claudemem.connection import SEARCH_SUFFIXES, open_to_build
from membridge.claudemem.sql import FIRST_ROWID, LAST_ROWID, Connection, RowRefusedError, Value
from membridge.claudemem.tables import (
    CARRIED_COLUMNS,
    REFERENCE_KEYS,
    Table,
    expression,
    quoted,
    travelling_tables,
)
from membridge.claudemem.translate import translated
from membridge.merge import indexes, search_index
from membridge.merge.indexes import NarrowCopy
from membridge.merge.report import Source
from membridge.merge.row_stream import Schema
from membridge.merge.rows import Reader
from membridge.merge.search_index import Rows, SearchIndex
from membridge.merge.search_parts import Joined
from membridge.merge.write import second_hash, stand_ins
from membridge.system import clock, files

#: The end of an index of the rows that were not synced yet; those that come are synced.
_UNSYNCED = re.compile(r"\bWHERE\s+synced_at\s+IS\s+NULL\s*;?\s*$", re.IGNORECASE)
#: Columns by whose index a row is found that another one refers to.
_PROBES = ("created_at_epoch", "content_session_id")

#: Rows that are copied at once, so that SQLite has them in its cache when the narrow copy takes them.
_SPAN = 300
#: The parts of the search indexes, as attached files.
_PARTS = ("part_1", "part_2")


def build(state: Path, schema: Schema, target: Path, *, source: Source, deadline: Deadline) -> None:
    """Make `target`, which is not there yet, a database with the rows of the memory file `state`.

    Every row is one of another machine's, of `source` unless it says otherwise: synced, with its origin. Errors: the
    databases', DiskFullError, DeadlineExceededError; what was begun stays there.
    """
    first, second = (target.with_name(f"{target.name}{suffix}") for suffix in SEARCH_SUFFIXES)
    parts = (first, second)
    _remove(parts)
    try:
        with open_to_build(target, state, deadline=deadline) as connection:
            connection.run(f"PRAGMA page_size = {schema.page_size}; PRAGMA auto_vacuum = {schema.auto_vacuum}")
            connection.run(f"PRAGMA user_version = {schema.user_version}")
            connection.run("BEGIN")
            builder = _Builder(connection, schema, source)
            searchable = search_index.Parts(parts, state, builder.begin())
            with threads.beside(searchable.make, deadline=deadline) as both_parts:
                builder.fill()
                # The rows reach the disk while the indexes are made of them, and so does what comes next.
                with threads.beside(files.sync_path, target):
                    builder.index()
                connection.run("COMMIT; PRAGMA shrink_memory")
                with threads.beside(files.sync_path, target):
                    is_first_there = searchable.help_out(deadline=deadline)
                if is_first_there:
                    builder.take(_PARTS[0], first)
                with threads.beside(files.sync_path, target):
                    both_parts.result()
                    if not is_first_there:
                        builder.take(_PARTS[0], first)
                    builder.take(_PARTS[1], second)
            connection.run("BEGIN")
            builder.finish()
            connection.run("COMMIT")
            for name in (*_PARTS, "state"):
                connection.run(f"DETACH {name}")
            # As claude-mem has it. Changes are read from the WAL; without one every merge would compare all rows.
            connection.run("PRAGMA journal_mode = WAL")
    finally:
        _remove(parts)


class _Builder:
    """One database in the making."""

    def __init__(self, connection: Connection, schema: Schema, source: Source) -> None:
        self._connection, self._schema = connection, schema
        self._own = _own_statements(schema)
        self._tables = dict[str, Table]()
        self._theirs = travelling_tables(connection, "state")
        #: Rows that lacked what their table demands, by table.
        self._alone = dict[str, list[int]]()
        self._narrow = dict[str, NarrowCopy]()
        self._search = list[SearchIndex]()
        #: Of which rows those indexes are that are made beside.
        self._beside = dict[SearchIndex, Rows]()
        self._joined = dict[SearchIndex, Joined]()
        self._bindings = {"now": int(clock.now().timestamp() * 1000), "device": source.device}

    def begin(self) -> Mapping[SearchIndex, Rows]:
        """Make the tables; return the search indexes that can be made beside, and of which rows."""
        self._run(sql for kind, _, sql in self._own if kind == "table")
        # No row that comes is in them: made afterwards, each would read its whole table to find that out.
        self._run(sql for kind, _, sql in self._own if kind == "index" and _is_of_unsynced(sql))
        self._tables = travelling_tables(self._connection)
        self._narrow = {copy.table: copy for copy in indexes.copies(self._connection, self._wanted_indexes())}
        for _, name, sql in self._own:
            index = search_index.search_index(self._connection, name, sql) if _is_virtual(sql) else None
            if index is None:
                continue
            self._search.append(index)
            table, known = self._tables.get(index.table), self._theirs.get(index.table)
            if table is not None and known is not None and search_index.is_as_it_stands(index, table, known):
                self._beside[index] = Rows(_whole(table, _expressions(table, self._theirs)), self._bindings)
        return self._beside

    def fill(self) -> None:
        """Copy the rows."""
        for name, table in self._tables.items():
            if name in self._theirs:
                self._fill(table)

    def index(self) -> None:
        """Make the indexes that SQLite needs."""
        made = {sql for copy in self._narrow.values() for sql in copy.make()}
        for sql in self._wanted_indexes():
            if sql not in made:
                self._index(sql)

    def take(self, name: str, part: Path) -> None:
        """Attach the file of a part of the search indexes as `name`, and copy it."""
        self._connection.run(f"ATTACH ? AS {name}", (str(part),))
        self._connection.run("BEGIN")
        for index in self._beside:
            if index not in self._joined:
                self._joined[index] = Joined(self._connection, index)
            self._joined[index].take(name)
        self._connection.run("COMMIT")

    def finish(self) -> None:
        """Bring the search indexes, and what runs when a row is written."""
        for index in self._search:
            if not self._is_joined(index):
                search_index.rebuild(self._connection, index.name)
                continue
            for rowid in self._alone.get(index.table, ()):
                search_index.add(self._connection, index, rowid)
        self._run(sql for kind, _, sql in self._own if kind in {"trigger", "view"})
        self._settle()

    def _is_joined(self, index: SearchIndex) -> bool:
        rows = self._connection.number(f"SELECT count(*) FROM main.{quoted(index.table)}")  # noqa: S608 - quoted
        joined = self._joined.get(index)
        return joined is not None and joined.finish(rows=rows - len(self._alone.get(index.table, ())))

    def _wanted_indexes(self) -> list[str]:
        return [sql for kind, _, sql in self._own if kind == "index" and not _is_of_unsynced(sql)]

    def _fill(self, table: Table) -> None:
        """Copy the rows of a table; those that lack what the table demands come one by one."""
        values = _expressions(table, self._theirs)
        whole = _whole(table, values)
        names = ", ".join(map(quoted, ("rowid", *values)))
        rows = f"SELECT t.rowid, {', '.join(values.values())} FROM state.{quoted(table.name)} t"  # noqa: S608 - names from the schema, quoted
        narrow = self._narrow.get(table.name)
        copied = 0
        span = f"{rows} WHERE t.rowid BETWEEN :first AND :last AND {whole}"
        for first, last in self._spans(table.name):
            self._connection.run(
                f"INSERT INTO main.{quoted(table.name)} ({names}) {span}",
                {**self._bindings, "first": first, "last": last},
            )
            copied += self._connection.apsw.changes()
            if narrow:
                narrow.take(first, last)
        if copied == self._connection.number(f"SELECT count(*) FROM state.{quoted(table.name)}"):  # noqa: S608 - as above
            return
        for row in self._connection.rows(f"{rows} WHERE NOT ({whole})", self._bindings):
            given = dict(zip(("rowid", *values), row, strict=True))
            self._insert_alone(table, given)
            rowid = int(str(given["rowid"]))
            self._alone.setdefault(table.name, []).append(rowid)
            if narrow:
                narrow.take(rowid, rowid)

    def _spans(self, table: str) -> Iterator[tuple[int, int]]:
        """Yield the first and the last rowid of spans that hold `_SPAN` rows of the memory file's table, or fewer."""
        end = f"SELECT rowid FROM state.{quoted(table)} WHERE rowid >= ? ORDER BY rowid LIMIT 1 OFFSET {_SPAN - 1}"  # noqa: S608 - quoted
        first = FIRST_ROWID
        while ends := self._connection.numbers(end, (first,)):
            yield first, ends[0]
            if ends[0] == LAST_ROWID:
                return
            first = ends[0] + 1
        yield first, LAST_ROWID

    def _insert_alone(self, table: Table, values: Mapping[str, Value]) -> None:
        """Insert a row from a version that did not know what the table demands."""
        given = {name: value for name, value in values.items() if value is not None}
        given |= stand_ins(table, given)
        columns, marks = ", ".join(map(quoted, given)), ", ".join("?" * len(given))
        sql = f"INSERT INTO main.{quoted(table.name)} ({columns}) VALUES ({marks})"  # noqa: S608 - names from the schema, quoted
        self._connection.run(sql, tuple(given.values()))

    def _index(self, sql: str) -> None:
        try:
            self._connection.write(sql, ())
        except RowRefusedError:
            # Rows of two primaries may carry one hash, which claude-mem wants to be of one kind.
            self._free_hashes()
            self._connection.run(sql)

    def _free_hashes(self) -> None:
        table = travelling_tables(self._connection)["observations"]
        taken = (
            "SELECT rowid FROM main.observations o WHERE EXISTS (SELECT 1 FROM main.observations e "
            "WHERE e.rowid < o.rowid AND e.memory_session_id IS o.memory_session_id "
            "AND e.content_hash IS o.content_hash)"
        )
        self._connection.run("CREATE INDEX main.membridge_hashes ON observations (content_hash)")
        for rowid in self._connection.numbers(taken):
            row = Reader(self._connection, table).row(rowid)
            if row is not None:
                second = second_hash(row.carried.get("content_hash"), row.values)
                self._connection.run("UPDATE main.observations SET content_hash = ? WHERE rowid = ?", (second, rowid))
        self._connection.run("DROP INDEX main.membridge_hashes")

    def _run(self, statements: Iterable[str]) -> None:
        for sql in statements:
            self._connection.run(sql)

    def _settle(self) -> None:
        """Write the versions of the schema and the highest rowids, so that none is given out twice."""
        for row in self._schema.versions:
            self._connection.run("INSERT INTO main.schema_versions (id, version, applied_at) VALUES (?, ?, ?)", row)
        travelling = travelling_tables(self._connection)
        if self._schema.sequences:
            # A table that got no row has given out none.
            self._connection.run("DELETE FROM main.sqlite_sequence WHERE seq = 0")
        for name, highest in self._schema.sequences.items():
            if name not in travelling:
                continue
            self._connection.run("DELETE FROM main.sqlite_sequence WHERE name = ?", (name,))
            largest = self._connection.number(f"SELECT max(rowid) FROM main.{quoted(name)}")  # noqa: S608 - quoted
            self._connection.run(
                "INSERT INTO main.sqlite_sequence (name, seq) VALUES (?, ?)", (name, max(highest, largest))
            )


def _remove(paths: Sequence[Path]) -> None:
    for path in paths:
        with translated(path):
            files.remove(path)


def _expressions(table: Table, theirs: Mapping[str, Table]) -> dict[str, str]:
    """Return the SQL of each column that is filled.

    It is the value in `theirs`, the rowid behind a natural key, or what a row of another machine has.
    """
    known = theirs[table.name]
    has_origin = known.has("origin_device_id") and known.has("origin_local_id")
    is_own = "t.origin_device_id IS NULL" if has_origin else "1"
    stamps = {
        "synced_at": ":now",
        "origin_device_id": f"CASE WHEN {is_own} THEN :device ELSE {_column(known, 'origin_device_id')} END",
        "origin_local_id": f"CASE WHEN {is_own} THEN '' || t.rowid ELSE {_column(known, 'origin_local_id')} END",
        "sync_rev": "1",
        "relevance_count": "0",
        "worker_port": "NULL",
    }
    values: dict[str, str] = {}
    for name in table.columns:
        if name in stamps:
            values[name] = stamps[name]
        elif name in table.references and known.has(name) and table.references[name].table in theirs:
            values[name] = _rowid_behind(theirs[table.references[name].table], f"t.{quoted(name)}")
        elif (name in table.travelling or name in CARRIED_COLUMNS) and known.has(name):
            values[name] = f"t.{quoted(name)}"
    return values


def _whole(table: Table, values: Mapping[str, str]) -> str:
    """Return the SQL of whether a row has all that its table demands."""
    needed = [value for name, value in values.items() if table.columns[name].not_null]
    return " AND ".join(f"{value} IS NOT NULL" for value in needed) or "1"


def _column(known: Table, name: str) -> str:
    return f"t.{quoted(name)}" if known.has(name) else "NULL"


def _rowid_behind(target: Table, key: str) -> str:
    """Return the SQL of the rowid of the row that a natural key names; rows keep the rowids of the memory file."""
    columns = REFERENCE_KEYS[target.name]
    probe = next((column for column in _PROBES if column in columns and target.has(column)), "")
    # The plus keeps SQLite from an index in which many rows share a value.
    equal = " AND ".join(
        f"{'' if column == probe else '+'}{expression(target, column, alias='n', schema='state')} "
        f"IS json_extract({key}, '$[{at}]')"
        for at, column in enumerate(columns)
    )
    found = f"SELECT n.rowid FROM state.{quoted(target.name)} n WHERE {equal} ORDER BY n.rowid LIMIT 1"  # noqa: S608 - quoted
    return f"CASE WHEN {key} IS NOT NULL THEN ({found}) END"


def _own_statements(schema: Schema) -> list[tuple[str, str, str]]:
    """Return the statements of the schema without those that SQLite carries out by itself."""
    virtual = tuple(f"{name}_" for _, name, sql in schema.statements if _is_virtual(sql))
    return [
        (kind, name, sql)
        for kind, name, sql in schema.statements
        if not name.startswith("sqlite_")
        and not (kind == "table" and not _is_virtual(sql) and name.startswith(virtual))
    ]


def _is_of_unsynced(sql: str) -> bool:
    return _UNSYNCED.search(sql) is not None


def _is_virtual(sql: str) -> bool:
    return sql.lstrip()[:22].casefold().startswith("create virtual table")
