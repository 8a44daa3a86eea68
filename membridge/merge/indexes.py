"""The indexes of a table that is being built, made from a narrow copy of it.

To make an index SQLite reads its whole table, and the ten of the observations read the texts ten times. Here the table
is read once, into one that has only the columns of the indexes. An index holds the values of its columns and a rowid,
so those of the narrow table are those of the wide one, which they are given to by the schema. Its pages are free then,
for what comes next.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from membridge.claudemem.sql import Connection, RowRefusedError
from membridge.claudemem.tables import quoted

#: Indexes of one table for which a copy pays.
_WORTH = 3
_NARROW = "membridge_narrow"
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
    """An index, and the columns that it needs."""

    sql: str
    name: str
    table: str
    narrow: str
    columns: frozenset[str]


def make(connection: Connection, statements: Sequence[str]) -> list[str]:
    """Make those indexes for which it pays; return the statements of the others, in their order.

    An index that rows forbid is among the others, and all of its table.
    """
    made: set[str] = set()
    plain = [index for sql in statements if (index := _plain(sql)) is not None]
    for table in dict.fromkeys(index.table for index in plain):
        columns = _columns(connection, table)
        fit = [index for index in plain if index.table == table and index.columns <= columns.keys()]
        if len(fit) >= _WORTH and _made(connection, table, fit, columns):
            made.update(index.sql for index in fit)
    return [sql for sql in statements if sql not in made]


def _plain(sql: str) -> _Index | None:
    found = _PLAIN.fullmatch(sql)
    if found is None:
        return None
    names = [word for part in found["columns"].split(",") for word in part.split()[:1]]
    columns = {_bare(name) for name in (*names, found["condition"] or names[0])}
    unique, where = found["unique"] or "", found["where"] or ""
    narrow = f"CREATE {unique}INDEX main.{found['name']} ON {_NARROW} ({found['columns']}){where}"
    return _Index(sql, _bare(found["name"]), _bare(found["table"]), narrow, frozenset(columns))


def _made(connection: Connection, table: str, fit: Sequence[_Index], columns: dict[str, str]) -> bool:
    used = [column for column in columns if any(column in index.columns for index in fit)]
    names = ", ".join(map(quoted, used))
    connection.run(f"CREATE TABLE main.{_NARROW} ({', '.join(columns[column] for column in used)})")
    connection.run(f"INSERT INTO main.{_NARROW} (rowid, {names}) SELECT rowid, {names} FROM main.{quoted(table)}")  # noqa: S608 - quoted
    try:
        for index in fit:
            connection.write(index.narrow, ())
    except RowRefusedError:
        connection.run(f"DROP TABLE main.{_NARROW}")
        return False
    connection.run("PRAGMA writable_schema = ON")
    for index in fit:
        connection.run(
            "UPDATE main.sqlite_schema SET tbl_name = ?, sql = ? WHERE type = 'index' AND name = ?",
            (table, index.sql, index.name),
        )
    # Read again, the schema has the indexes where they belong.
    connection.run("PRAGMA writable_schema = RESET")
    connection.run(f"DROP TABLE main.{_NARROW}")
    return True


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
