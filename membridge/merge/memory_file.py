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
from membridge.claudemem.tables import KEY_DEFAULTS, Table, quoted, travelling_tables
from membridge.claudemem.translate import translated
from membridge.merge import memory_schema
from membridge.merge.memory_schema import OtherSchemaError
from membridge.merge.row_stream import (
    Link,
    MalformedStreamError,
    Message,
    Origin,
    Schema,
    Sent,
    Tail,
    Went,
    canonical_rows,
    sent_rows,
)
from membridge.merge.rows import Key, Reader

#: Pages that are copied at once.
_PAGES = 1_024
#: KiB of the page cache, of a file that is used and of one that is being built.
_CACHE, _BUILDING_CACHE = 256, 4096

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
                journal = "MEMORY; PRAGMA synchronous = OFF" if building else "WAL; PRAGMA synchronous = NORMAL"
                self.connection.run("PRAGMA foreign_keys = OFF; PRAGMA trusted_schema = OFF; PRAGMA secure_delete = ON")
                self.connection.run(f"PRAGMA journal_mode = {journal}; PRAGMA cache_size = -{cache}")
                if not self.connection.number("PRAGMA user_version"):
                    memory_schema.create(self.connection)
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

    def roll_back(self) -> None:
        """End the transaction that is under way as if nothing had been taken in."""
        with translated(self.path):
            self.connection.run("ROLLBACK")

    def note(self, position: bytes) -> None:
        """Note what the state is called, in the transaction that is under way, or in one of its own."""
        with translated(self.path):
            self.connection.run("INSERT OR REPLACE INTO membridge_state VALUES ('position', ?)", (position,))

    def position(self) -> bytes:
        """Return what the state was called when it was written, nothing for one that was only built."""
        row = self.connection.row("SELECT value FROM membridge_state WHERE name = 'position'")
        return row[0] if row is not None and isinstance(row[0], bytes) else b""

    def take_in(self, messages: Iterable[Message]) -> dict[str, set[Key]]:
        """Become what a delta makes of this memory; return the keys of its rows by table.

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

    def sent(self) -> Iterator[Sent]:
        """Yield every row as it travels."""
        for table in travelling_tables(self.connection).values():
            yield from sent_rows(self.connection, table)

    def check(self) -> None:
        """Read everything and compare it with the sums that are noted. Raises OtherMemoryError."""
        with translated(self.path):
            self.check_counted(self.counted())

    def check_counted(self, counted: Tail) -> None:
        """Compare what was counted with what is noted. Raises OtherMemoryError."""
        if counted != Tail(self.rows(), self.sums()):
            raise OtherMemoryError(f"{self.path} does not hold the rows that it should")

    def note_counted(self, counted: Tail) -> None:
        """Note what was counted, in the transaction that is under way, or in one of its own."""
        with translated(self.path):
            for name, rows in counted.rows.items():
                self.connection.run(
                    "UPDATE membridge_tables SET rows = ?, sum = ? WHERE name = ?", (rows, counted.sums[name], name)
                )

    def counted(self) -> Tail:
        """Read all rows, and return their numbers and sums."""
        rows, sums = dict[str, int](), dict[str, bytes]()
        for name, table in travelling_tables(self.connection).items():
            count, total = 0, 0
            for row in canonical_rows(self.connection, table):
                count, total = count + 1, total + canonical.row_sum(row)
            if count:
                rows[name], sums[name] = count, canonical.stored(total)
        return Tail(rows, sums)

    def check_schema(self) -> None:
        """Raise OtherSchemaError for a file that came from elsewhere and is not what a memory file is."""
        try:
            memory_schema.check(self.connection, self.origins())
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise OtherSchemaError(f"{self.path} does not say what its tables are: {error}") from error

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
        if not isinstance(begin, Link) or begin.sums != self.sums():
            raise OtherMemoryError("the delta was made for another memory")
        self.know(begin.schema, begin.tables)
        yield begin
        changes = _Changes(self.connection, keys)
        for message in messages:
            changes.take(message)
            if isinstance(message, Tail):
                changes.finish(begin.sums)
                if (self.rows(), self.sums()) != (message.rows, message.sums):
                    raise OtherMemoryError("the rows do not add up to what was promised")
                yield message
                return
            yield message
        raise MalformedStreamError("the stream lacks its end")

    def know(self, schema: Schema | None, tables: Mapping[str, Origin]) -> None:
        """Note a schema, and make the tables and columns that are new."""
        if schema is not None:
            self.connection.run("INSERT OR REPLACE INTO membridge_state VALUES ('schema', ?)", (_encode(schema),))
        known = self.origins()
        for name, origin in tables.items():
            if name in known:
                memory_schema.widen_table(self.connection, name, known[name], origin)
                both = _encode(known[name].with_more(origin))
                self.connection.run("UPDATE membridge_tables SET origin = ? WHERE name = ?", (both, name))
                continue
            memory_schema.create_table(self.connection, name, origin)
            self.connection.run("INSERT INTO membridge_tables VALUES (?, 0, ?, ?)", (name, bytes(32), _encode(origin)))
            if known:
                memory_schema.create_indexes(self.connection, name, origin)

    def index(self) -> None:
        """Make the indexes of a memory that was filled."""
        for name, origin in self.origins().items():
            memory_schema.create_indexes(self.connection, name, origin)


def digest_of(sums: Mapping[str, bytes]) -> str:
    """Return what names the state whose tables have these sums."""
    return hashlib.sha256(_encode(sorted(sums.items()))).hexdigest()


class _Changes:
    """What one stream changes: rows are collected, written and added up."""

    def __init__(self, connection: Connection, keys: dict[str, set[Key]]) -> None:
        self._connection, self._keys = connection, keys
        self._tables = travelling_tables(connection)
        self._columns = {name: _columns_of(table) for name, table in self._tables.items()}
        self._readers = {name: Reader(connection, table) for name, table in self._tables.items()}
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
        rowid = sent.rowid if self._is_free(sent) else None
        columns = ("rowid", *self._columns[name])
        self._connection.run(
            f"INSERT INTO {quoted(name)} ({', '.join(map(quoted, columns))}) "  # noqa: S608 - quoted
            f"VALUES ({', '.join('?' * len(columns))})",
            (rowid, *map(values.get, self._columns[name])),
        )
        key = tuple([values.get(column, KEY_DEFAULTS.get(column)) for column in table.key])
        self._keys.setdefault(name, set()).add(key)

    def finish(self, before: Mapping[str, bytes]) -> None:
        """Write the sums."""
        for name, rows in self._rows.items():
            total = int.from_bytes(before.get(name, b""), "big") + self._added[name]
            self._connection.run(
                "UPDATE membridge_tables SET rows = rows + ?, sum = ? WHERE name = ?",
                (rows, canonical.stored(total), name),
            )

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
