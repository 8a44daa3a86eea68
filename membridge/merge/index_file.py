"""The file of a row index: the key of each live row, the open keys, and what they were read from.

Says nothing about what belongs in there; `row_index` does. Whatever goes wrong with the file is an IndexFileError, so
that it is not mistaken for an error of the live database that is read meanwhile.
"""

from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import apsw
import msgspec

from membridge.claudemem.live_view import Position
from membridge.claudemem.sql import Connection
from membridge.merge.rows import Key
from membridge.system import files

#: Version of the file's layout; another one is made anew.
VERSION = 1
#: Milliseconds to wait for another process that has the file.
_PATIENCE = 5_000
_SUFFIXES = ("", "-wal", "-shm", "-journal")

_SCHEMA = f"""
CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE tables (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, rows INTEGER NOT NULL);
CREATE TABLE keys ("table" INTEGER, id INTEGER, key BLOB NOT NULL, PRIMARY KEY ("table", id)) WITHOUT ROWID;
CREATE TABLE open ("table" INTEGER, key BLOB, turn INTEGER NOT NULL, PRIMARY KEY ("table", key)) WITHOUT ROWID;
PRAGMA user_version = {VERSION};
"""
_encode = msgspec.msgpack.Encoder().encode
_decode_key = msgspec.msgpack.Decoder(list[object]).decode
_decode_position = msgspec.msgpack.Decoder(Position).decode


#: What a file that is damaged, or of another program, looks like; any other error may pass.
_DAMAGE = (apsw.CorruptError, apsw.NotADBError, apsw.SQLError, msgspec.DecodeError, UnicodeDecodeError)


class IndexFileError(Exception):
    """The file cannot be used, for good if it `is_damaged`: everything is compared instead. Never leaves `snapshot`."""

    def __init__(self, message: str, *, is_damaged: bool) -> None:
        super().__init__(message)
        self.is_damaged = is_damaged


class IndexFile:
    """An open file. Every call but `close` belongs into a transaction."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with _reported(path):
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._connection = Connection(apsw.Connection(str(path), statementcachesize=16))
            self._connection.apsw.set_busy_timeout(_PATIENCE)
            try:
                # What a power cut takes back is compared once more; a WAL that nobody forces is whole all the same.
                self._connection.run("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA cache_size = -64")
                self._prepare()
            except BaseException:
                self._connection.close()
                raise

    def close(self) -> None:
        """Close the file."""
        with suppress(apsw.Error):
            self._connection.close()

    @contextmanager
    def transaction(self) -> Generator[None]:
        """Commit what the body does, or nothing of it."""
        with _reported(self._path):
            self._connection.run("BEGIN IMMEDIATE")
        try:
            yield
            with _reported(self._path):
                self._connection.run("COMMIT")
        except BaseException:
            with suppress(apsw.Error):
                if self._connection.in_transaction:
                    self._connection.run("ROLLBACK")
            raise

    def get(self, name: str) -> bytes:
        """Return what was noted under a name, nothing when nothing was."""
        with _reported(self._path):
            row = self._connection.row("SELECT value FROM meta WHERE name = ?", (name,))
        return row[0] if row is not None and isinstance(row[0], bytes) else b""

    def put(self, name: str, value: bytes) -> None:
        """Note something under a name."""
        with _reported(self._path):
            self._connection.run("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))

    def number(self, name: str) -> int:
        """Return a number that was noted."""
        return int(self.get(name) or b"0")

    def position(self) -> Position | None:
        """Return the state of the live database that the keys were read from."""
        try:
            return _decode_position(self.get("position"))
        except msgspec.DecodeError:
            return None

    def set_position(self, position: Position) -> None:
        """Note the state of the live database that the keys are of now."""
        self.put("position", _encode(position))

    def rows(self) -> dict[str, int]:
        """Return how many live rows each table has."""
        with _reported(self._path):
            found = self._connection.rows("SELECT name, rows FROM tables ORDER BY id")
        return {str(name): rows for name, rows in found if isinstance(rows, int)}

    def known(self, table: str, first: int, last: int) -> dict[int, bytes]:
        """Return the keys of the rows of a table from one rowid to another."""
        with _reported(self._path):
            found = self._connection.rows(
                'SELECT id, key FROM keys WHERE "table" = ? AND id BETWEEN ? AND ?', (self._id(table), first, last)
            )
        return {number: key for number, key in found if isinstance(number, int) and isinstance(key, bytes)}

    def change(self, table: str, came: Sequence[tuple[int, bytes]], went: Sequence[int], *, more: int) -> None:
        """Write and delete keys of a table that has `more` rows then."""
        if not came and not went:
            return
        number = self._id(table)
        with _reported(self._path):
            apsw_connection = self._connection.apsw
            apsw_connection.executemany(  # pyright: ignore[reportUnknownMemberType] - apsw's stub names Python 3.12's Buffer
                'DELETE FROM keys WHERE "table" = ? AND id = ?', [(number, rowid) for rowid in went]
            )
            apsw_connection.executemany(  # pyright: ignore[reportUnknownMemberType] - as above
                "INSERT OR REPLACE INTO keys VALUES (?, ?, ?)", [(number, rowid, key) for rowid, key in came]
            )
            self._connection.run("UPDATE tables SET rows = rows + ? WHERE id = ?", (more, number))

    def keep_only(self, tables: Iterable[str]) -> None:
        """Forget every table that the live database does not have any more."""
        with _reported(self._path):
            for name in self.rows().keys() - set(tables):
                for held in ("keys", "open"):
                    self._connection.run(f'DELETE FROM {held} WHERE "table" = ?', (self._id(name),))  # noqa: S608 - our own names
                self._connection.run("DELETE FROM tables WHERE name = ?", (name,))

    def open(self, table: str, keys: Iterable[bytes], turn: int) -> None:
        """Open keys of a table."""
        number = self._id(table)
        with _reported(self._path):
            self._connection.apsw.executemany(  # pyright: ignore[reportUnknownMemberType] - as above
                "INSERT OR REPLACE INTO open VALUES (?, ?, ?)", [(number, key, turn) for key in keys]
            )

    def settle(self, table: str, keys: Iterable[bytes], turn: int) -> None:
        """Close keys that were opened by `turn`."""
        number = self._id(table)
        with _reported(self._path):
            self._connection.apsw.executemany(  # pyright: ignore[reportUnknownMemberType] - as above
                'DELETE FROM open WHERE "table" = ? AND key = ? AND turn <= ?', [(number, key, turn) for key in keys]
            )

    def settle_all(self, turn: int) -> None:
        """Close every key that was opened by `turn`."""
        with _reported(self._path):
            self._connection.run("DELETE FROM open WHERE turn <= ?", (turn,))

    def opened(self) -> dict[str, list[Key]]:
        """Return the open keys by table."""
        with _reported(self._path):
            rows = self._connection.rows('SELECT name, key FROM open JOIN tables ON id = "table" ORDER BY turn')
        found: dict[str, list[Key]] = {}
        for name, key in rows:
            if isinstance(key, bytes):
                found.setdefault(str(name), []).append(_unpacked(key))
        return found

    def _id(self, table: str) -> int:
        with _reported(self._path):
            self._connection.run("INSERT INTO tables (name, rows) VALUES (?, 0) ON CONFLICT DO NOTHING", (table,))
            return self._connection.number("SELECT id FROM tables WHERE name = ?", (table,))

    def _prepare(self) -> None:
        found = self._connection.number("PRAGMA user_version")
        if found == VERSION:
            return
        if found:
            raise IndexFileError(f"row index {self._path} is of version {found}", is_damaged=True)
        self._connection.run("BEGIN IMMEDIATE")
        with self._connection.apsw:
            if not self._connection.number("PRAGMA user_version"):
                self._connection.run(_SCHEMA)
        self._connection.run("COMMIT")


def packed(key: Key | None) -> bytes:
    """Return a key as the file has it; nothing for a row that no key names."""
    return b"" if key is None else _encode(key)


def _unpacked(key: bytes) -> Key:
    return tuple([part if isinstance(part, int | float | str | bytes) else None for part in _decode_key(key)])


def remove(path: Path) -> None:
    """Delete an index that cannot be used."""
    for suffix in _SUFFIXES:
        files.discard(path.with_name(path.name + suffix))


@contextmanager
def _reported(path: Path) -> Generator[None]:
    try:
        yield
    except (apsw.Error, OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise IndexFileError(f"row index {path}: {error}", is_damaged=isinstance(error, _DAMAGE)) from error
