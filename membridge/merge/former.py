"""Rows as they were before a write: every column, local ones too, under the rowid that they had.

A merge knows rows by natural keys and leaves local columns alone; an undo record must not. It speaks tables, rowids and
raw values, so that a row comes back exactly.
"""

import hashlib
from collections.abc import Iterable

import msgspec

from membridge.claudemem.sql import Connection, Value
from membridge.claudemem.tables import quoted

#: The rowid of a row, and its table.
RowKey = tuple[str, int]
#: Columns that no program changes once a row is there, as far as a table has them. They tell a row from another one
#: that got its rowid later.
_LASTING = (
    "created_at_epoch",
    "started_at_epoch",
    "content_session_id",
    "content_hash",
    "prompt_number",
    "origin_device_id",
    "origin_local_id",
)


class Content(msgspec.Struct, frozen=True, array_like=True):
    """The content of a row without its rowid; `raw` holds text that is not UTF-8."""

    values: dict[str, int | float | str | None]
    blobs: dict[str, bytes] = {}
    raw: dict[str, bytes] = {}

    def value(self, column: str) -> Value:
        """Return what a column holds; bytes for text that is not UTF-8, None for a column that the row lacks."""
        if column in self.values:
            return self.values[column]
        return self.blobs.get(column, self.raw.get(column))

    def has(self, column: str) -> bool:
        """Whether the row has a column."""
        return column in self.values or column in self.blobs or column in self.raw


class Former(msgspec.Struct, frozen=True, array_like=True):
    """A row as a write found it; `content` is None where there was none.

    `mark` tells the row that the write left there, empty if it left none. With `again` the write had recorded the row
    before: its content is in that entry, and only the mark is another one.
    """

    table: str
    rowid: int
    content: Content | None
    mark: bytes
    again: bool = False

    @property
    def key(self) -> RowKey:
        """Its table and rowid."""
        return self.table, self.rowid


class RawRows:
    """Reads and writes whole rows of one database by their rowids."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._columns: dict[str, tuple[str, ...]] = {}
        self._inserted: set[str] = set()

    def tables(self) -> frozenset[str]:
        """Return the tables that have rowids; a search index and what it consists of are not among them."""
        sql = "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'table' AND NOT wr"
        return frozenset(name for name in self._connection.texts(sql) if not name.startswith("sqlite_"))

    def columns(self, table: str) -> tuple[str, ...]:
        """Return the columns of a table, without one that is another name of the rowid; nothing for no table."""
        if table not in self._columns:
            info = self._connection.rows("SELECT name, type, pk FROM pragma_table_info(?)", (table,))
            keys = [str(name) for name, kind, position in info if position and str(kind).upper() == "INTEGER"]
            alias = keys if sum(bool(row[2]) for row in info) == 1 else []
            self._columns[table] = tuple(str(row[0]) for row in info if row[0] not in alias)
        return self._columns[table]

    def read(self, key: RowKey) -> Content | None:
        """Return a row, None when there is none."""
        table, rowid = key
        columns = self.columns(table)
        if not columns:
            return None
        where = f"FROM {quoted(table)} WHERE rowid = ?"
        try:
            row = self._connection.row(f"SELECT {', '.join(map(quoted, columns))} {where}", (rowid,))
            return None if row is None else _content(zip(columns, row, strict=True), {})
        except UnicodeDecodeError:
            return self._read_raw(columns, where, rowid)

    def mark(self, key: RowKey) -> bytes:
        """Return what tells a row from another one under the same rowid, nothing when there is none."""
        return mark_of(self.read(key))

    def write(self, key: RowKey, content: Content | None) -> None:
        """Make a row what `content` says, or delete it. Columns that the table lacks are left out.

        Raises RowRefusedError where a constraint of the table forbids it.
        """
        table, rowid = key
        if content is None:
            self._connection.run(f"DELETE FROM {quoted(table)} WHERE rowid = ?", (rowid,))  # noqa: S608 - quoted
            return
        names = [name for name in self.columns(table) if content.has(name)]
        given = [content.value(name) for name in names]
        marks = ["CAST(? AS TEXT)" if name in content.raw else "?" for name in names]
        if self._connection.exists(f"SELECT 1 FROM {quoted(table)} WHERE rowid = ?", (rowid,)):  # noqa: S608 - quoted
            sets = ", ".join(f"{quoted(name)} = {mark}" for name, mark in zip(names, marks, strict=True))
            sql = f"UPDATE {quoted(table)} SET {sets} WHERE rowid = ?"  # noqa: S608 - quoted
        else:
            columns = ", ".join([*map(quoted, names), "rowid"])
            sql = f"INSERT INTO {quoted(table)} ({columns}) VALUES ({', '.join([*marks, '?'])})"  # noqa: S608 - quoted
        self._connection.write(sql, (*given, rowid))

    def sequences(self) -> dict[str, int]:
        """Return the highest rowid that each table has given, as far as SQLite remembers it."""
        if not self._connection.exists("SELECT 1 FROM sqlite_schema WHERE name = 'sqlite_sequence'"):
            return {}
        rows = self._connection.rows("SELECT name, seq FROM sqlite_sequence ORDER BY name")
        return {str(name): seq for name, seq in rows if isinstance(seq, int)}

    def _read_raw(self, columns: Iterable[str], where: str, rowid: int) -> Content | None:
        values: dict[str, Value] = {}
        raw: dict[str, bytes] = {}
        for name in columns:
            column = quoted(name)
            undecoded = f"CASE typeof({column}) WHEN 'text' THEN CAST({column} AS BLOB) ELSE {column} END"
            row = self._connection.row(f"SELECT typeof({column}), {undecoded} {where}", (rowid,))
            if row is None:
                return None
            kind, value = row
            if kind != "text" or not isinstance(value, bytes):
                values[name] = value
                continue
            try:
                values[name] = value.decode()
            except UnicodeDecodeError:
                raw[name] = value
        return _content(values.items(), raw)


def mark_of(content: Content | None) -> bytes:
    """Return what tells a row of this content from another one that gets its rowid later; nothing for none."""
    if content is None:
        return b""
    lasting = [(name, content.value(name)) for name in _LASTING if content.has(name)]
    return hashlib.blake2b(msgspec.msgpack.encode(lasting), digest_size=8).digest()


def _content(values: Iterable[tuple[str, Value]], raw: dict[str, bytes]) -> Content:
    plain: dict[str, int | float | str | None] = {}
    blobs: dict[str, bytes] = {}
    for name, value in values:
        if isinstance(value, bytes):
            blobs[name] = value
        else:
            plain[name] = value
    return Content(plain, blobs, raw)


def is_same(one: Content | None, other: Content | None) -> bool:
    """Whether two contents are equal, types included."""
    return msgspec.msgpack.encode(one) == msgspec.msgpack.encode(other)


def combined(records: Iterable[Iterable[Former]]) -> dict[RowKey, Former]:
    """Return the rows as they were before the first of several writes, which come oldest first.

    The content is that of the oldest entry, the mark that of the newest.
    """
    found: dict[RowKey, Former] = {}
    for record in records:
        for key, former in of_one_write(record).items():
            known = found.get(key)
            found[key] = former if known is None else Former(*key, known.content, former.mark)
    return found


def of_one_write(entries: Iterable[Former]) -> dict[RowKey, Former]:
    """Return the rows of one record: a later entry counts, because the transaction of the earlier was rolled back."""
    found: dict[RowKey, Former] = {}
    for former in entries:
        known = found.get(former.key)
        if former.again and known is not None:
            former = Former(*former.key, known.content, former.mark)  # noqa: PLW2901 - the same entry, complete
        found[former.key] = former
    return found
