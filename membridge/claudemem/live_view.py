"""Looks at the live database, each at one known state, and which rows may have changed since an earlier look.

A daemon keeps one connection open between the looks: only while it is open the number of commits can be trusted, and
the WAL is not deleted by whoever closes last. A look takes no lock that a writer waits for and checkpoints nothing.
"""

import os
import secrets
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import apsw
import msgspec

from membridge.aio.deadline import Deadline
from membridge.claudemem import btree, open_files, wal
from membridge.claudemem.btree import Range
from membridge.claudemem.connection import check_is_claude_mem, prepare, resolve
from membridge.claudemem.sql import Connection
from membridge.claudemem.tables import Table, travelling_tables
from membridge.claudemem.translate import translated
from membridge.claudemem.wal import CannotTellError, WalFile, WalState

#: Tries to begin a transaction while nobody commits; each takes a tenth of a millisecond.
_TRIES = 100
#: What SQLite makes of files that were replaced while it had them open.
_OF_OLD_FILES = (apsw.IOError, apsw.CorruptError, apsw.NotADBError, apsw.CantOpenError)


class Position(msgspec.Struct, frozen=True, array_like=True):
    """A state of a live database: its file, its schema, the end of its WAL, and who saw it.

    `view` names the connection that was open then; the number of commits says nothing to another one.
    """

    file: tuple[int, int]
    size: int
    changed_at: int
    schema: int
    wal: WalState | None
    view: str


@dataclass(frozen=True, slots=True)
class Look:
    """One state of the database: a transaction in it, what travels, and the `ranges` of rowids that may have changed.

    `ranges` is None when every row must be compared; `why` says for what reason.
    """

    connection: Connection
    position: Position
    tables: dict[str, Table]
    ranges: dict[str, set[Range]] | None = None
    why: str = ""


@dataclass(slots=True)
class _Open:
    """An open connection, the file it is to, its descriptor of the WAL's index, and what was learned meanwhile.

    `newest` has the last frame of each page among the first `known` frames of the WAL with the salt `salt`.
    """

    connection: Connection
    path: Path
    file: tuple[int, int]
    view: str = field(default_factory=lambda: secrets.token_hex(8))
    index: int = -1
    schema: int = -1
    tables: dict[str, Table] = field(default_factory=dict[str, Table])
    roots: dict[int, str] = field(default_factory=dict[int, str])
    salt: bytes = b""
    known: int = 0
    newest: dict[int, int] = field(default_factory=dict[int, int])


class LiveView:
    """Looks at the database at `path`. Not safe for two users at once: its owner serialises.

    One that `stays_open` keeps its connection between two looks: no other SQLite library of the process may open the
    database then.
    """

    def __init__(self, path: Path, *, stays_open: bool) -> None:
        self._path, self._stays_open = path, stays_open
        self._open: _Open | None = None

    @contextmanager
    def look(self, before: Position | None, *, deadline: Deadline) -> Generator[Look]:
        """Yield the state of the database now, compared with `before`. Errors: the database's."""
        real = resolve(self._path)
        with translated(self._path):
            opened, look = self._looked(real, before, deadline)
            try:
                yield look
            except BaseException:
                # Whatever went wrong, the next look begins with a connection of its own.
                self.close()
                raise
            with suppress(apsw.Error):
                opened.connection.run("COMMIT")
            if not self._stays_open:
                self.close()

    def close(self) -> None:
        """Close the connection; the next look opens another one."""
        opened, self._open = self._open, None
        if opened is not None:
            with suppress(apsw.Error):
                opened.connection.close()

    def _looked(self, real: Path, before: Position | None, deadline: Deadline) -> tuple[_Open, Look]:
        is_old = self._open is not None
        try:
            opened = self._connected(real, deadline)
            look = self._look(opened, before)
            if look is not None:
                return opened, look
        except BaseException as error:
            self.close()
            # Files that were replaced under a connection say nothing about the present ones.
            if not is_old or not isinstance(error, _OF_OLD_FILES):
                raise
        self.close()
        opened = self._connected(real, deadline)
        try:
            return opened, self._look(opened, before) or _everything(opened, None, "its WAL has no index")
        except BaseException:
            self.close()
            raise

    def _connected(self, real: Path, deadline: Deadline) -> _Open:
        facts = real.stat()
        file = (facts.st_dev, facts.st_ino)
        if self._open is not None and (self._open.file, self._open.path) != (file, real):
            self.close()
        if self._open is None:
            connection = Connection(apsw.Connection(str(real), flags=apsw.SQLITE_OPEN_READWRITE, statementcachesize=16))
            self._open = _Open(connection, real, file)
            prepare(connection, real, deadline=deadline)
            check_is_claude_mem(connection, real)
            connection.run("PRAGMA query_only = ON; PRAGMA cache_size = -64")
        else:
            prepare(self._open.connection, real, deadline=deadline)
        return self._open

    def _look(self, opened: _Open, before: Position | None) -> Look | None:
        """Return the look, None when the connection is to files that are not the database's any more."""
        state: WalState | None = None
        for _ in range(_TRIES):
            seen = _state(opened)
            opened.connection.run("BEGIN; SELECT 1 FROM sqlite_schema LIMIT 1")
            state = _state(opened)
            # What a checkpoint moved may differ; what was committed may not.
            if _committed(seen) == _committed(state) and state is not None:
                found = self._compared(opened, before, state)
                if found is not None:
                    return found
            if state is None and seen is None and not _has_wal(opened):
                return self._without_wal(opened, before)
            opened.connection.run("COMMIT")
        if state is None:
            return None
        opened.connection.run("BEGIN; SELECT 1 FROM sqlite_schema LIMIT 1")
        return _everything(opened, None, "other programs commit all the time")

    def _compared(self, opened: _Open, before: Position | None, state: WalState) -> Look | None:
        """Return the look in the transaction that is open now, None when the WAL began anew in the middle of it."""
        _learn(opened)
        position = _position(opened, state)
        why = _incomparable(before, position)
        if why or before is None or before.wal is None:
            return _everything(opened, position, why)
        if _committed(before.wal) == _committed(state):
            return Look(opened.connection, position, opened.tables, {})
        try:
            found = _changed(opened, before.wal, state, counted=before.view == opened.view)
        except (CannotTellError, IndexError) as error:
            again = _state(opened)
            if again is None or again.salt != state.salt:
                return None
            return _everything(opened, position, str(error))
        return Look(opened.connection, position, opened.tables, found)

    def _without_wal(self, opened: _Open, before: Position | None) -> Look:
        _learn(opened)
        position = _position(opened, None)
        if before is not None and before.wal is None and _unwritten(before, position):
            return Look(opened.connection, position, opened.tables, {})
        return _everything(opened, position, "it has no WAL")


def _unwritten(before: Position, now: Position) -> bool:
    return (before.file, before.size, before.changed_at, before.schema) == (
        now.file,
        now.size,
        now.changed_at,
        now.schema,
    )


def _everything(opened: _Open, position: Position | None, why: str) -> Look:
    _learn(opened)
    # A state that is not known exactly is compared with nothing the next time.
    known = position or Position(opened.file, 0, 0, -1, None, opened.view)
    return Look(opened.connection, known, opened.tables, None, why)


def _incomparable(before: Position | None, now: Position) -> str:
    """Return why no comparison of WALs tells what changed; nothing when one may."""
    if before is None or before.wal is None or now.wal is None:
        return "it was not looked at before"
    if before.file != now.file:
        return "it is another file"
    # An empty WAL that was there already has no page size yet.
    if before.wal.page_size != now.wal.page_size and before.wal.page_size:
        return "its pages have another size"
    if before.schema != now.schema:
        return "its schema changed"
    still = (before.wal.salt, before.wal.moved, before.wal.moving) == (now.wal.salt, now.wal.moved, now.wal.moving)
    if still and before.wal.moved == before.wal.moving and not _unwritten(before, now):
        return "its file was written, and not from its WAL"
    return ""


def _changed(opened: _Open, before: WalState, state: WalState, *, counted: bool) -> dict[str, set[Range]]:
    """Return the rowids of each table that may have changed between two states. Raises CannotTellError."""
    page_size = opened.connection.number("PRAGMA page_size")
    with WalFile(opened.path) as frames:
        pages = wal.pages_since(frames, before, state, counted=counted)
        _learn_frames(opened, frames, state)
        read: dict[int, bytes] = {}

        def page(number: int) -> bytes:
            content = read.get(number)
            if content is None:
                at = opened.newest.get(number, 0)
                # What a checkpoint has moved is read from the file: the WAL may begin anew over it, the file does not.
                content = frames.content(at) if at > state.moved else _in_file(opened, number, page_size)
                if len(content) < page_size:
                    raise CannotTellError(f"page {number} is cut off")
                read[number] = content
            return content

        file = btree.File(page, page_size, opened.connection.number("PRAGMA page_count"))
        found = btree.ranges_of(file, pages, opened.roots)
    return {opened.roots[root]: ranges for root, ranges in found.items() if ranges}


def _learn_frames(opened: _Open, frames: WalFile, state: WalState) -> None:
    if opened.salt != state.salt or opened.known > state.frames:
        opened.salt, opened.known, opened.newest = state.salt, 0, {}
    for frame in frames.frames(opened.known + 1, state.frames):
        if frame.salt != state.salt:
            raise CannotTellError("the WAL began anew while it was read")
        opened.known += 1
        opened.newest[frame.page] = opened.known


def _in_file(opened: _Open, number: int, size: int) -> bytes:
    complete, content = opened.connection.apsw.read("main", 0, (number - 1) * size, size)
    return content if complete else b""


def _learn(opened: _Open) -> None:
    """Read what travels, and where it lies, once per version of the schema."""
    schema = opened.connection.number("PRAGMA schema_version")
    if schema == opened.schema:
        return
    opened.tables = travelling_tables(opened.connection)
    roots = opened.connection.rows("SELECT rootpage, name FROM sqlite_schema WHERE type = 'table'")
    opened.roots = {
        root: name for root, name in roots if isinstance(root, int) and isinstance(name, str) and name in opened.tables
    }
    opened.schema = schema


def _position(opened: _Open, state: WalState | None) -> Position:
    facts = opened.path.stat()
    return Position((facts.st_dev, facts.st_ino), facts.st_size, facts.st_mtime_ns, opened.schema, state, opened.view)


def _committed(state: WalState | None) -> WalState | None:
    return None if state is None else state._replace(moved=0, moving=0)


def _has_wal(opened: _Open) -> bool:
    return opened.connection.texts("PRAGMA journal_mode") == ["wal"]


def _state(opened: _Open) -> WalState | None:
    """Return the state of the WAL's index, through SQLite's own descriptor of it."""
    index = Path(f"{opened.path}-shm")
    try:
        facts = index.stat()
    except OSError:
        return None
    if opened.index < 0 or not open_files.is_file(opened.index, facts):
        opened.index = next(open_files.descriptors(index), -1)
    if opened.index < 0:
        return None
    try:
        head = os.pread(opened.index, wal.INDEX_BYTES, 0)
    except OSError:
        return None
    return wal.state_of(head) if open_files.is_file(opened.index, facts) else None
