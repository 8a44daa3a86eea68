"""The indexes of a table that is being built, made from a narrow copy of it.

To make an index SQLite reads its whole table, and the ten of the observations read the texts ten times. Here each row
is copied while SQLite still has it in its cache, into a table that has only the columns of the indexes. An index holds
the values of its columns and a rowid, so those of the narrow table are those of the wide one, which they are given to
by the schema. Its pages are free then, for what comes next.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from membridge.claudemem.sql import Connection, RowRefusedError
from membridge.claudemem.tables import quoted

#: Indexes of one table for which a copy pays.
_WORTH = 3
#: The begin of the names of the copies.
_NARROW = "membridge_narrow_"
_NAME = r"(?:\w+|\"\w+\")"
#: An index of columns as they are, perhaps of those rows alone where a column is set or is not.
_PLAIN = re.compile(
    rf"CREATE\s+(?P<unique>UNIQUE\s+)?INDEX\s+(?P<name>{_NAME})\s+ON\s+(?P<table>{_NAME})\s*"
    rf"\((?P<columns>\s*{_NAME}(?:\s+(?:ASC|DESC))?\s*(?:,\s*{_NAME}(?:\s+(?:ASC|DESC))?\s*)*)\)"
    rf"(?P<where>\s*WHERE\s+(?P<condition>{_NAME})\s+IS\s+(?:NOT\s+)?NULL)?\s*;?\s*",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class _Index:
    """An index, the statement that makes it of the narrow copy, and the columns that it needs."""

    sql: str
    name: str
    table: str
    narrow: str
    columns: frozenset[str]


class NarrowCopy:
    """The narrow copy of a table: empty at first, it takes the rows that the table got, and becomes its indexes."""

    def __init__(self, connection: Connection, table: str, fit: Sequence[_Index], columns: dict[str, str]) -> None:
        self.table = table
        self._connection, self._fit, self._name = connection, fit, _name_of_copy(table)
        used = [column for column in columns if any(column in index.columns for index in fit)]
        self._columns = ", ".join(map(quoted, ("rowid", *used)))
        connection.run(f"CREATE TABLE main.{self._name} ({', '.join(columns[column] for column in used)})")

    def take(self, first: int, last: int) -> None:
        """Take the rows of the table from one rowid to another."""
        rows = f"SELECT {self._columns} FROM main.{quoted(self.table)} WHERE rowid BETWEEN ? AND ?"  # noqa: S608 - quoted
        self._connection.run(f"INSERT INTO main.{self._name} ({self._columns}) {rows}", (first, last))

    def make(self) -> frozenset[str]:
        """Make the indexes, all or none, and drop the copy; return the statements of those that were made.

        None is made if the rows forbid one.
        """
        try:
            for index in self._fit:
                self._connection.write(index.narrow, ())
        except RowRefusedError:
            self._drop()
            return frozenset()
        self._connection.run("PRAGMA writable_schema = ON")
        for index in self._fit:
            self._connection.run(
                "UPDATE main.sqlite_schema SET tbl_name = ?, sql = ? WHERE type = 'index' AND name = ?",
                (self.table, index.sql, index.name),
            )
        # Read again, the schema has the indexes where they belong.
        self._connection.run("PRAGMA writable_schema = RESET")
        self._drop()
        return frozenset(index.sql for index in self._fit)

    def _drop(self) -> None:
        self._connection.run(f"DROP TABLE main.{self._name}")


def copies(connection: Connection, statements: Sequence[str]) -> list[NarrowCopy]:
    """Make the empty copies of those tables for whose indexes among `statements` they pay."""
    made: list[NarrowCopy] = []
    plain = [index for sql in statements if (index := _plain(sql)) is not None]
    for table in dict.fromkeys(index.table for index in plain):
        columns = _columns(connection, table)
        fit = [index for index in plain if index.table == table and index.columns <= columns.keys()]
        if len(fit) >= _WORTH:
            made.append(NarrowCopy(connection, table, fit, columns))
    return made


def _name_of_copy(table: str) -> str:
    return quoted(f"{_NARROW}{table}")


def _plain(sql: str) -> _Index | None:
    found = _PLAIN.fullmatch(sql)
    if found is None:
        return None
    names = [word for part in found["columns"].split(",") for word in part.split()[:1]]
    columns = {_bare(name) for name in (*names, found["condition"] or names[0])}
    table, unique, where = _bare(found["table"]), found["unique"] or "", found["where"] or ""
    narrow = f"CREATE {unique}INDEX main.{found['name']} ON {_name_of_copy(table)} ({found['columns']}){where}"
    return _Index(sql, _bare(found["name"]), table, narrow, frozenset(columns))


def _columns(connection: Connection, table: str) -> dict[str, str]:
    """Return the columns of a table of which an index is the same in a copy, as they are declared there."""
    kind = connection.row(
        "SELECT wr, strict FROM pragma_table_list WHERE schema = 'main' AND type = 'table' AND name = ?", (table,)
    )
    return dict(_declared(connection, table)) if kind == (0, 0) else {}


def _declared(connection: Connection, table: str) -> Iterator[tuple[str, str]]:
    # One that is the rowid is none of the copy's own, and one that is computed would have to be computed there.
    names = connection.texts("SELECT name FROM pragma_table_xinfo(?) WHERE hidden = 0 AND pk = 0", (table,))
    for name in names:
        kind, collation, *_ = connection.apsw.column_metadata("main", table, name)
        yield name, f"{quoted(name)} {quoted(kind) if kind else ''} COLLATE {quoted(collation)}"


def _bare(name: str) -> str:
    return name.strip('"')
