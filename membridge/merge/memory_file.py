"""One state of a memory in a file of its own: a mirror, or an earlier state that was rebuilt.

Each table that travels is in it under its name, with the columns that travel; a reference holds the natural key of its
row, so that no rowid means anything. `rows.Reader` reads it like a live database. Which tables and columns there are
comes from what was received, never from this machine's claude-mem: what only newer versions know is kept.
Rows, sums and position change in one transaction: a stream either fits the state and leads to the state that it
promises, or changes nothing.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import apsw
import msgspec

from membridge.aio.deadline import Deadline
from membridge.claudemem import canonical
from membridge.claudemem.connection import MEMORY_SUFFIX, bound
from membridge.claudemem.sql import Connection, Value
from membridge.claudemem.tables import (
    KEY_DEFAULTS,
    MEMORY_FILE,
    REFERENCE_KEYS,
    Table,
    quoted,
    travelling_tables,
)
from membridge.claudemem.translate import translated
from membridge.merge.row_stream import (
    Head,
    Link,
    MalformedStreamError,
    Message,
    Origin,
    Schema,
    Sent,
    Tail,
    Went,
    sent_rows,
)
from membridge.merge.rows import Key, Reader

#: Version of the file's layout.
VERSION = 1
#: Columns by which rows are looked for, where a table has them.
_INDEXED = ("content_session_id", "memory_session_id", "created_at_epoch")
#: Rows that are written at once.
_CHUNK = 512
#: Pages that are copied at once.
_PAGES = 1_024
#: KiB of the page cache, of a file that is used and of one that is being built.
_CACHE, _BUILDING_CACHE = 256, 4096

_SCHEMA = f"""
PRAGMA application_id = {MEMORY_FILE};
CREATE TABLE membridge_state (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE membridge_tables (
    name TEXT PRIMARY KEY, rows INTEGER NOT NULL, sum BLOB NOT NULL, origin BLOB NOT NULL
) WITHOUT ROWID;
PRAGMA user_version = {VERSION};
"""
_FLAGS = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE | apsw.SQLITE_OPEN_URI
_encode = msgspec.msgpack.Encoder().encode
_decode_origin = msgspec.msgpack.Decoder(Origin).decode
_decode_schema = msgspec.msgpack.Decoder(Schema).decode


class OtherMemoryError(Exception):
    """A delta that does not fit this memory, or does not lead where it promises; nothing was changed."""


class MemoryFile:
    """An open memory file. Not safe for two users at once; several may have the file open."""

    def __init__(self, path: Path, *, deadline: Deadline, building: bool = False) -> None:
        """Open `path`, which is made if it is not there; one that is being built is not safe before `settle`."""
        if path.suffix != MEMORY_SUFFIX:
            raise ValueError(f"{path} is not named as a memory file")
        self.path = path
        with translated(path):
            self.connection = Connection(apsw.Connection(str(path), flags=_FLAGS))
            try:
                bound(self.connection, deadline)
                self.connection.apsw.set_busy_timeout(10_000)
                cache = _BUILDING_CACHE if building else _CACHE
                journal = "OFF; PRAGMA synchronous = OFF" if building else "WAL; PRAGMA synchronous = NORMAL"
                self.connection.run("PRAGMA foreign_keys = OFF")
                self.connection.run(
                    f"PRAGMA secure_delete = ON; PRAGMA journal_mode = {journal}; PRAGMA cache_size = -{cache}"
                )
                if not self.connection.number("PRAGMA user_version"):
                    self.connection.run(f"BEGIN; {_SCHEMA} COMMIT")
            except BaseException:
                self.connection.close()
                raise

    def close(self) -> None:
        """Close the file; a transaction that is under way is rolled back."""
        self.connection.close()

    def begin(self) -> None:
        """Begin a transaction that only `commit` makes the file's state; everybody else reads the former one."""
        with translated(self.path):
            self.connection.run("BEGIN IMMEDIATE")

    def commit(self, position: bytes) -> None:
        """Make what was taken in since `begin` the file's state, called `position`."""
        with translated(self.path):
            self.note(position)
            self.connection.run("COMMIT")

    def note(self, position: bytes) -> None:
        """Note what the state is called, in the transaction that is under way, or in one of its own."""
        self.connection.run("INSERT OR REPLACE INTO membridge_state VALUES ('position', ?)", (position,))

    def position(self) -> bytes:
        """Return what the state was called when it was written, nothing for one that was only built."""
        row = self.connection.row("SELECT value FROM membridge_state WHERE name = 'position'")
        return row[0] if row is not None and isinstance(row[0], bytes) else b""

    def take_in(self, messages: Iterable[Message]) -> dict[str, set[Key]]:
        """Become what a full holds, or what a delta makes of this memory; return the keys of a delta's rows by table.

        In the transaction that is under way; when this fails the caller closes the file. Errors: OtherMemoryError,
        MalformedStreamError, the file's.
        """
        keys: dict[str, set[Key]] = {}
        for _ in self.passing(messages, keys):
            pass
        return keys

    def passing(self, messages: Iterable[Message], keys: dict[str, set[Key]] | None = None) -> Iterator[Message]:
        """Yield messages and take them in, as `take_in` does; `keys` gets the keys."""
        with translated(self.path):
            yield from self._passing(iter(messages), {} if keys is None else keys)

    def rows(self) -> dict[str, int]:
        """Return how many rows each table has that has any."""
        found = self.connection.rows("SELECT name, rows FROM membridge_tables WHERE rows > 0 ORDER BY name")
        return {str(name): rows for name, rows in found if isinstance(rows, int)}

    def sums(self) -> dict[str, bytes]:
        """Return the sum of each table that has rows."""
        found = self.connection.rows("SELECT name, sum FROM membridge_tables WHERE rows > 0 ORDER BY name")
        return {str(name): total for name, total in found if isinstance(total, bytes)}

    def digest(self) -> str:
        """Return what names this state and no other: a sha256 over the sums of its tables, in hex."""
        return digest_of(self.sums())

    def check_is(self, digest: str) -> None:
        """Raise OtherMemoryError for another state than the one that `digest` names."""
        if self.digest() != digest:
            raise OtherMemoryError(f"{self.path} holds another state")

    def size_bytes(self) -> int:
        """Return what the state takes on the disk."""
        return self.connection.number("PRAGMA page_count") * self.connection.number("PRAGMA page_size")

    def origins(self) -> dict[str, Origin]:
        """Return what is known of each table."""
        found = self.connection.rows("SELECT name, origin FROM membridge_tables ORDER BY name")
        return {str(name): _decode_origin(origin) for name, origin in found if isinstance(origin, bytes)}

    def schema(self) -> Schema:
        """Return the newest schema that this memory has come with."""
        row = self.connection.row("SELECT value FROM membridge_state WHERE name = 'schema'")
        return _decode_schema(row[0] if row is not None and isinstance(row[0], bytes) else b"")

    def full(self) -> Iterator[Message]:
        """Yield the whole memory as a stream's messages, tables that others refer to first.

        Raises OtherMemoryError at the end when the rows are not those whose sums are noted.
        """
        rows, added = dict[str, int](), dict[str, int]()
        yield from self._each(rows, added)
        tail = _tail(rows, added)
        if (tail.rows, tail.sums) != (self.rows(), self.sums()):
            raise OtherMemoryError(f"{self.path} does not hold the rows that it should")
        yield tail

    def counted(self) -> Iterator[Message]:
        """Yield as `full` does, and note the number and the sums of the rows as they are."""
        rows, added = dict[str, int](), dict[str, int]()
        yield from self._each(rows, added)
        tail = _tail(rows, added)
        for name, count in tail.rows.items():
            self.connection.run(
                "UPDATE membridge_tables SET rows = ?, sum = ? WHERE name = ?", (count, tail.sums[name], name)
            )
        yield tail

    def _each(self, rows: dict[str, int], added: dict[str, int]) -> Iterator[Message]:
        origins, tables = self.origins(), travelling_tables(self.connection)
        yield Head(self.schema(), origins)
        referred = {target for origin in origins.values() for target in origin.references.values()}
        for name in sorted(origins, key=lambda name: (name not in referred, bool(origins[name].references), name)):
            count, total = 0, 0
            for sent in sent_rows(self.connection, tables[name]):
                count, total = count + 1, total + canonical.row_sum(sent.canonical)
                yield sent
            rows[name], added[name] = count, total

    def check(self) -> None:
        """Read everything and compare it with the sums that are noted. Raises OtherMemoryError."""
        with translated(self.path):
            for _ in self.full():
                pass

    def copy_to(self, target: Path, *, deadline: Deadline) -> None:
        """Make `target`, which is not there yet, a copy of the state as it is now."""
        with translated(target):
            copy = apsw.Connection(str(target))
            try:
                with copy.backup("main", self.connection.apsw, "main") as pages:
                    while not pages.done:
                        pages.step(_PAGES)
                        deadline.check("copying the mirror")
            finally:
                copy.close()

    def settle(self) -> None:
        """Give a file that was built the journal of one that is in use."""
        with translated(self.path):
            self.connection.run("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL")

    def _passing(self, messages: Iterator[Message], keys: dict[str, set[Key]]) -> Iterator[Message]:
        begin = next(messages, None)
        if begin is None:
            return
        self._check_begin(begin)
        if isinstance(begin, Head | Link):
            self.know(begin.schema, begin.tables)
        yield begin
        changes = _Changes(self.connection, keys, is_full=isinstance(begin, Head))
        for message in messages:
            changes.take(message)
            if isinstance(message, Tail):
                changes.finish(self.sums())
                if (self.rows(), self.sums()) != (message.rows, message.sums):
                    raise OtherMemoryError("the rows do not add up to what was promised")
                if isinstance(begin, Head):
                    self.index()
                yield message
                return
            yield message
        raise MalformedStreamError("the stream lacks its end")

    def _check_begin(self, begin: Message) -> None:
        if isinstance(begin, Head):
            if self.origins():
                raise OtherMemoryError("a full belongs into an empty memory")
        elif not isinstance(begin, Link) or begin.sums != self.sums():
            raise OtherMemoryError("the delta was made for another memory")

    def know(self, schema: Schema | None, tables: Mapping[str, Origin]) -> None:
        """Note a schema, and make the tables and columns that are new."""
        if schema is not None:
            self.connection.run("INSERT OR REPLACE INTO membridge_state VALUES ('schema', ?)", (_encode(schema),))
        known = self.origins()
        for name, origin in tables.items():
            if name in known:
                self._widen(name, known[name], origin)
                continue
            declared = ", ".join(_declared(origin, column) for column in (*origin.columns, *origin.carried))
            self.connection.run(f"CREATE TABLE {quoted(name)} ({declared})")
            self.connection.run("INSERT INTO membridge_tables VALUES (?, 0, ?, ?)", (name, bytes(32), _encode(origin)))
            if name not in REFERENCE_KEYS:
                # Says what the table's key is.
                columns = ", ".join(map(quoted, origin.key))
                self.connection.run(f"CREATE UNIQUE INDEX {quoted(f'{name}_key')} ON {quoted(name)} ({columns})")
            elif known:
                self._index_of(name, origin)

    def _widen(self, name: str, known: Origin, origin: Origin) -> None:
        for column in (*origin.columns, *origin.carried):
            if column not in known.columns and column not in known.carried:
                self.connection.run(f"ALTER TABLE {quoted(name)} ADD COLUMN {_declared(origin, column)}")
        self.connection.run(
            "UPDATE membridge_tables SET origin = ? WHERE name = ?", (_encode(known.with_more(origin)), name)
        )

    def index(self) -> None:
        """Make the indexes of a memory that was filled."""
        for name, origin in self.origins().items():
            if name in REFERENCE_KEYS:
                self._index_of(name, origin)

    def _index_of(self, name: str, origin: Origin) -> None:
        for column in _INDEXED:
            if column in origin.columns:
                self.connection.run(f"CREATE INDEX {quoted(f'{name}_{column}')} ON {quoted(name)} ({quoted(column)})")


def _tail(rows: Mapping[str, int], added: Mapping[str, int]) -> Tail:
    filled = {name: count for name, count in rows.items() if count}
    return Tail(filled, {name: canonical.stored(added[name]) for name in filled})


def digest_of(sums: Mapping[str, bytes]) -> str:
    """Return what names the state whose tables have these sums."""
    return hashlib.sha256(_encode(sorted(sums.items()))).hexdigest()


def _declared(origin: Origin, column: str) -> str:
    """Return a column as it is declared: without a type, so that every value is kept as it is."""
    target = origin.references.get(column)
    return quoted(column) if target is None else f"{quoted(column)} REFERENCES {quoted(target)}"


class _Changes:
    """What one stream changes: rows are collected, written and added up."""

    def __init__(self, connection: Connection, keys: dict[str, set[Key]], *, is_full: bool) -> None:
        self._connection, self._keys, self._is_full = connection, keys, is_full
        self._tables = travelling_tables(connection)
        self._columns = {name: _columns_of(table) for name, table in self._tables.items()}
        self._readers = {name: Reader(connection, table) for name, table in self._tables.items()}
        self._waiting: dict[str, list[tuple[Value, ...]]] = {}
        self._rows: dict[str, int] = {}
        self._added: dict[str, int] = {}

    def take(self, message: Message) -> None:
        """Take in a row that came or went."""
        if isinstance(message, Went):
            self._remove(message)
        elif isinstance(message, Sent):
            self._insert(message)

    def _remove(self, went: Went) -> None:
        table, reader = self._tables.get(went.table), self._readers.get(went.table)
        if table is None or reader is None:
            raise OtherMemoryError(f"a row of {went.table} goes, of which nothing is known")
        key, total = tuple(went.key), int.from_bytes(went.sum, "big")
        for row in reader.bucket(key):
            if canonical.row_sum(canonical.encode(table, row.values)) == total:
                self._connection.run(f"DELETE FROM {quoted(went.table)} WHERE rowid = ?", (row.rowid,))  # noqa: S608 - quoted
                self._count(went.table, -1, -total)
                self._keys.setdefault(went.table, set()).add(key)
                return
        raise OtherMemoryError(f"a row of {went.table} that goes is not there")

    def _insert(self, sent: Sent) -> None:
        name = sent.table
        table = self._tables.get(name)
        if table is None:
            raise MalformedStreamError(f"a row of {name}, of which nothing is known")
        values = _values(sent)
        self._count(name, 1, canonical.row_sum(sent.canonical))
        if self._is_full:
            waiting = self._waiting.setdefault(name, [])
            waiting.append((sent.rowid, *map(values.get, self._columns[name])))
            if len(waiting) >= _CHUNK:
                self._write(name)
            return
        rowid = sent.rowid if self._is_free(sent) else None
        self._waiting[name] = [(rowid, *map(values.get, self._columns[name]))]
        self._write(name)
        key = tuple([values.get(column, KEY_DEFAULTS.get(column)) for column in table.key])
        self._keys.setdefault(name, set()).add(key)

    def finish(self, before: Mapping[str, bytes]) -> None:
        """Write what waits, and the sums."""
        for name in list(self._waiting):
            self._write(name)
        for name, rows in self._rows.items():
            total = int.from_bytes(before.get(name, b""), "big") + self._added[name]
            self._connection.run(
                "UPDATE membridge_tables SET rows = rows + ?, sum = ? WHERE name = ?",
                (rows, canonical.stored(total), name),
            )

    def _write(self, name: str) -> None:
        rows = self._waiting.pop(name, [])
        columns = ", ".join(map(quoted, ("rowid", *self._columns[name])))
        marks = ", ".join("?" * (1 + len(self._columns[name])))
        self._connection.write_many(f"INSERT INTO {quoted(name)} ({columns}) VALUES ({marks})", rows)  # noqa: S608 - quoted

    def _is_free(self, sent: Sent) -> bool:
        return not self._connection.exists(f"SELECT 1 FROM {quoted(sent.table)} WHERE rowid = ?", (sent.rowid,))  # noqa: S608 - quoted

    def _count(self, table: str, rows: int, added: int) -> None:
        self._rows[table] = self._rows.get(table, 0) + rows
        self._added[table] = self._added.get(table, 0) + added


def _columns_of(table: Table) -> tuple[str, ...]:
    return tuple(table.columns)


def _values(sent: Sent) -> dict[str, Value]:
    """Return the columns of a row as a memory file holds them."""
    try:
        name, content = canonical.decode(sent.canonical)
    except ValueError as error:
        raise MalformedStreamError(str(error)) from error
    if name != sent.table:
        raise MalformedStreamError(f"a row of {name} among those of {sent.table}")
    values: dict[str, Value] = dict(sent.carried)
    for column, value in content.items():
        if isinstance(value, str | int | float | bytes):
            values[column] = value
        elif isinstance(value, list):
            # As SQLite's json_array writes it.
            values[column] = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return values
