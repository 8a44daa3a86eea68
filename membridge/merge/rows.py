"""Read rows from a database: the bucket of a key, in the form of the rules.

A column that holds a rowid reads as the natural key of the row it points at, as JSON text.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from membridge.claudemem.sql import Connection
from membridge.claudemem.tables import CARRIED_COLUMNS, Table, expression, quoted
from membridge.merge.likeness import Likeness
from membridge.merge.three_way import Row, Shape, Value, Values

Key = tuple[Value, ...]

#: If more rows share an indexed value, another way to find them is tried.
CROWDED = 64

#: Columns by which a bucket is looked up: each has an index in every version, and few rows share a value.
_LOOKUP = {
    "sdk_sessions": ("content_session_id",),
    "observations": ("created_at_epoch", "memory_session_id"),
    "session_summaries": ("created_at_epoch", "memory_session_id"),
    "user_prompts": ("content_session_id",),
}


@dataclass(frozen=True, slots=True)
class Reader:
    """Reads one table of one database, whose own rows are of `device`; empty for this machine's."""

    connection: Connection
    table: Table
    schema: str = "main"
    device: str = ""

    def bucket(self, key: Key) -> list[Row]:
        """Return the rows of a bucket, oldest first."""
        lookup = self._lookup(key)
        conditions = " AND ".join(
            f"{'' if column in lookup else '+'}{self._value(column)} IS ?" for column in self.table.key
        )
        return self._read(f"WHERE {conditions} ORDER BY t.rowid", key)

    def values_from(self, columns: tuple[str, ...], first: int, most: int) -> list[tuple[Value, ...]]:
        """Return rowids and columns of rows in the order of their rowids, from one rowid on.

        Raises UnicodeDecodeError for text that is not UTF-8.
        """
        names = ", ".join(map(self._value, columns))
        sql = f"SELECT t.rowid, {names} FROM {self._from()} WHERE t.rowid >= ? ORDER BY t.rowid LIMIT ?"  # noqa: S608 - names from the schema, quoted
        return list(self.connection.each(sql, (first, most)))

    def rows_from(self, first: int, most: int) -> list[Row]:
        """Return rows in the order of their rowids, from one rowid on."""
        return self._read("WHERE t.rowid >= ? ORDER BY t.rowid LIMIT ?", (first, most))

    def row(self, rowid: int) -> Row | None:
        """Return the row with a rowid, None when there is none."""
        return next(iter(self._read("WHERE t.rowid = ?", (rowid,))), None)

    def key(self, rowid: int) -> Key | None:
        """Return the key of the row with a rowid, None when its text is not UTF-8 and names nothing."""
        columns = ", ".join(self._value(column) for column in self.table.key)
        try:
            return self.connection.row(f"SELECT {columns} FROM {self._from()} WHERE t.rowid = ?", (rowid,))  # noqa: S608 - names from the schema, quoted
        except UnicodeDecodeError:
            return None

    def keys(self, first: int, last: int) -> Iterator[tuple[int, Key | None]]:
        """Yield the rows with a rowid from `first` to `last` and their keys, as `key` does, in order."""
        columns = ", ".join(self._value(column) for column in self.table.key)
        where = "WHERE t.rowid BETWEEN ? AND ? ORDER BY t.rowid"
        try:
            for rowid, *key in self.connection.each(
                f"SELECT t.rowid, {columns} FROM {self._from()} {where}",  # noqa: S608 - names from the schema, quoted
                (first, last),
            ):
                if isinstance(rowid, int):
                    yield rowid, tuple(key)
                    first = rowid + 1
        except UnicodeDecodeError:
            sql = f"SELECT t.rowid FROM {self._from()} {where}"  # noqa: S608 - names from the schema, quoted
            for rowid in self.connection.numbers(sql, (first, last)):
                yield rowid, self.key(rowid)

    def keys_where(self, column: str, value: Value) -> list[Key | None]:
        """Return the keys of the rows that hold `value` in an indexed column."""
        sql = f"SELECT t.rowid FROM {self._from()} WHERE t.{quoted(column)} = ?"  # noqa: S608 - names from the schema, quoted
        return [self.key(rowid) for rowid in self.connection.numbers(sql, (value,))]

    def _lookup(self, key: Key) -> tuple[str, ...]:
        """Return the columns to look a bucket up by: an index that few rows share the value in."""
        candidates = [c for c in _LOOKUP.get(self.table.name, ()) if c in self.table.indexed]
        for column in candidates[:-1]:
            value = key[self.table.key.index(column)]
            sql = f"SELECT count(*) FROM (SELECT 1 FROM {self._from()} WHERE {self._value(column)} IS ? LIMIT ?)"  # noqa: S608 - names from the schema, quoted
            if self.connection.number(sql, (value, CROWDED + 1)) <= CROWDED:
                return (column,)
        return tuple(candidates[-1:]) or self.table.key

    def _read(self, where: str, bindings: tuple[Value, ...]) -> list[Row]:
        carried = tuple(column for column in CARRIED_COLUMNS if self.table.has(column))
        # An older version may lack a part of the key: the rules get its default.
        content = (*self.table.travelling, *(name for name in self.table.key if not self.table.has(name)))
        names = (*content, *carried)
        columns = ", ".join(self._value(name) for name in names)
        sql = f"SELECT t.rowid, {columns} FROM {self._from()} {where}"  # noqa: S608 - names from the schema, quoted
        try:
            rows = self.connection.rows(sql, bindings)
        except UnicodeDecodeError:
            # Text that is not UTF-8 reads as bytes: a wrong type, which the rest of the merge knows how to refuse.
            columns = ", ".join(_undecoded(self._value(name)) for name in names)
            sql = f"SELECT t.rowid, {columns} FROM {self._from()} {where}"  # noqa: S608 - names from the schema, quoted
            rows = [tuple(map(_decoded, row)) for row in self.connection.each(sql, bindings)]
        return [self._row(row, content, carried) for row in rows]

    def _row(self, found: tuple[Value, ...], content: tuple[str, ...], carried: tuple[str, ...]) -> Row:
        split = 1 + len(content)
        along = dict(zip(carried, found[split:], strict=True))
        rowid = found[0] if isinstance(found[0], int) else None
        return Row(
            values=dict(zip(content, found[1:split], strict=True)),
            rowid=rowid,
            carried=along,
            names=origin_names(along, rowid, self.device),
        )

    def _value(self, column: str) -> str:
        return expression(self.table, column, alias="t", schema=self.schema)

    def _from(self) -> str:
        return f"{self.schema}.{quoted(self.table.name)} t"


def shape_of(table: Table, columns: tuple[str, ...]) -> Shape:
    """Return how rows of a table are compared by the given columns."""
    return Shape(columns, Likeness(tuple(c for c in table.identity if c in columns), table.unique))


def key_of(table: Table, values: Values) -> Key:
    """Return the bucket that a row belongs to."""
    return tuple([values.get(column) for column in table.key])


def origin_names(carried: Values, rowid: int | None, device: str) -> frozenset[tuple[str, str]]:
    """Return the origins of a row: its origin, or its rowid in the database of `device` (nothing: this machine).

    A row that came to `device` from elsewhere may be one of this machine's own.
    """
    origin, local = carried.get("origin_device_id"), carried.get("origin_local_id")
    if not isinstance(origin, str):
        return frozenset() if rowid is None else frozenset({(device, str(rowid))})
    if not isinstance(local, str):
        return frozenset()
    return frozenset({(origin, local), ("", local)} if device else {(origin, local)})


def _undecoded(sql: str) -> str:
    return f"CASE typeof({sql}) WHEN 'text' THEN CAST({sql} AS BLOB) ELSE {sql} END"


def _decoded(value: Value) -> Value:
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return value
    return value
