"""Which rows of the live database may differ from the mirror: kept up by what changed, not by comparing everything.

The index knows the key of every live row, the state of the live database that this was read from, the mirror that it
is held against, and the open keys. Invariant: a key under which the live database and the mirror differ is open, or
its rows changed after that state. All of it changes in one transaction. What the cheap way cannot tell, and an index
that is lost or damaged, is compared completely.
"""

import threading
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from membridge.aio.deadline import Deadline
from membridge.claudemem.btree import ALL, Range
from membridge.claudemem.connection import open_to_compare
from membridge.claudemem.live_view import LiveView, Look
from membridge.claudemem.sql import Connection
from membridge.claudemem.tables import REFERENCE_KEYS, Table
from membridge.merge.difference import difference
from membridge.merge.index_file import IndexFile, IndexFileError, packed, remove
from membridge.merge.rows import Key, Reader
from membridge.system.logging import get_logger
from membridge.system.problem import Problem

log = get_logger("membridge.rows")

#: Name of the file in a project's folder.
INDEX_FILE = "rows.db"
#: Rows that are read and written at once.
_CHUNK = 512

#: Keys by table.
Keys = Mapping[str, Iterable[Key]]


_ENDED = "the index has ended"


@dataclass(frozen=True, slots=True)
class MirrorFile:
    """The mirror that the live database is held against: its digest and its file."""

    sha256: str
    path: Path


@dataclass(frozen=True, slots=True)
class Standing:
    """What the index knows as of `turn`: live rows by table, and the keys under which live and mirror may differ."""

    turn: int
    rows: dict[str, int]
    open: dict[str, list[Key]]


class RowIndex:
    """The index of one project, in the file `path`. Safe to use from several threads; blocking.

    One that is `lasting` keeps a connection to the live database, as a daemon's does. Nothing is opened before it is
    needed. Any call may raise IndexFileError; a damaged file is made anew by the next one.
    """

    def __init__(self, path: Path, live: Path, *, lasting: bool = False) -> None:
        self._path, self._live = path, live
        self._view = LiveView(live, stays_open=lasting)
        self._lock = threading.Lock()
        self._file: IndexFile | None = None
        self._has_ended = False
        #: Why it could not be used last.
        self.problem = Problem(log, "row index not used, everything compared")
        #: How many keys had been missed, ever; known once the file is open.
        self.missed = 0

    def close(self) -> None:
        """Close the file and the connection to the live database."""
        with self._lock:
            self._view.close()
            self._close_file()

    def end(self) -> None:
        """Close it for good: whoever still looks at a project that is gone would make its file anew."""
        # Nobody needs to be told.
        self._has_ended, self.problem.reason = True, _ENDED
        self.close()

    def catch_up(self, mirror: MirrorFile | None, *, deadline: Deadline) -> Standing:
        """Take in what changed in the live database, and return what may differ from the mirror now.

        Errors: the live database's, and those of the mirror's file.
        """
        with self._lock:
            return self._catch_up(mirror, deadline)

    @contextmanager
    def looking(self, mirror: MirrorFile, *, deadline: Deadline) -> Generator[tuple[Standing, Connection]]:
        """Give what may differ from the mirror, and the live database in the transaction that this is true of.

        Errors: as `catch_up`, and those of the body, which undo nothing here.
        """
        with self._lock:
            self._catch_up(mirror, deadline)
            with self._transaction() as file, self._view.look(file.position(), deadline=deadline) as look:
                self._take_look(file, look)
                if file.get("mirror").decode() != mirror.sha256:
                    raise IndexFileError("the database changed too much between two looks", is_damaged=False)
                yield Standing(file.number("turn"), file.rows(), file.opened()), look.connection

    def feed(self, *, deadline: Deadline) -> None:
        """Take in what changed in the live database, unless the index is in use: before its WAL begins anew over it.

        Errors: the live database's.
        """
        if not self._lock.acquire(blocking=False):
            return
        try:
            with self._transaction() as file:
                self._look(file, deadline)
        finally:
            self._lock.release()

    def moved(self, sha256: str, keys: Keys, *, turn: int) -> None:
        """Hold the live database against another mirror from now on.

        `keys` are those under which the two differed when they were compared, after `turn`: none for a mirror that was
        copied from the live database after that.
        """
        with self._lock, self._transaction() as file:
            _hold_against(file, sha256, keys, turn)

    def settled(self, keys: Keys, *, turn: int) -> None:
        """Close keys under which the two were equal when they were compared, after `turn`."""
        with self._lock, self._transaction() as file:
            for name, some in keys.items():
                file.settle(name, map(packed, some), turn)

    def distrust(self, missed: int) -> None:
        """Count keys that had been missed: they differ and are not open. The next look compares everything."""
        with self._lock, self._transaction() as file:
            file.put("position", b"")
            self.missed = file.number("missed") + missed
            file.put("missed", str(self.missed).encode())

    def _catch_up(self, mirror: MirrorFile | None, deadline: Deadline) -> Standing:
        with self._transaction() as file:
            self._look(file, deadline)
            known, turn = file.get("mirror").decode(), file.number("turn")
        if mirror is not None and known != mirror.sha256:
            found = _difference(self._live, mirror, deadline)
            with self._transaction() as file:
                _hold_against(file, mirror.sha256, found, turn)
        with self._transaction() as file:
            return Standing(turn, file.rows(), file.opened())

    def _look(self, file: IndexFile, deadline: Deadline) -> None:
        """Bring the keys to the state of the live database, and open those that may have changed since."""
        with self._view.look(file.position(), deadline=deadline) as look:
            self._take_look(file, look)

    def _take_look(self, file: IndexFile, look: Look) -> None:
        if look.ranges is None or not _take_in(file, look, look.ranges):
            log.debug("all rows compared", database=str(self._live), reason=look.why or "a column has no index")
            for table in look.tables.values():
                for _ in _compared(file, look, table, {ALL}):
                    pass
            file.keep_only(look.tables)
            file.put("mirror", b"")
        if look.position != file.position():
            file.set_position(look.position)

    @contextmanager
    def _transaction(self) -> Generator[IndexFile]:
        if self._has_ended:
            raise IndexFileError(_ENDED, is_damaged=False)
        try:
            if self._file is None:
                self._file = IndexFile(self._path)
                with self._file.transaction():
                    self.missed = self._file.number("missed")
            with self._file.transaction():
                yield self._file
        except IndexFileError as error:
            self._close_file()
            if error.is_damaged:
                remove(self._path)
            raise

    def _close_file(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def missed_in(path: Path) -> int:
    """Return how many keys the audits of the database of the index at `path` have found that had been missed, ever."""
    if not path.exists():
        return 0
    try:
        with closing(IndexFile(path)) as file, file.transaction():
            return file.number("missed")
    except IndexFileError:
        # Damaged, and made anew by the next who needs it.
        return 0


def _hold_against(file: IndexFile, sha256: str, keys: Keys, turn: int) -> None:
    file.settle_all(turn)
    for name, some in keys.items():
        file.open(name, map(packed, some), turn)
    file.put("mirror", sha256.encode())


def _take_in(file: IndexFile, look: Look, ranges: Mapping[str, set[Range]]) -> bool:
    """Take in the rows of `ranges`; return False when it cannot be told which rows refer to some of them."""
    turn = file.number("turn") + 1
    opened = False
    for name, table in look.tables.items():
        renamed: set[int] = set()
        for rowid, before, now in _compared(file, look, table, ranges.get(name, set())):
            keys = {key for key in (before, now) if key}
            file.open(name, keys, turn)
            opened = opened or bool(keys)
            if before != now or not _is_named_by_key(table):
                renamed.add(rowid)
        if not _open_referrers(file, look, name, renamed, turn):
            return False
    if opened:
        file.put("turn", str(turn).encode())
    return True


def _is_named_by_key(table: Table) -> bool:
    """Whether a row's key is also the name by which others refer to it, if they can."""
    return set(REFERENCE_KEYS.get(table.name, ())) <= set(table.key)


def _open_referrers(file: IndexFile, look: Look, target: str, renamed: set[int], turn: int) -> bool:
    """Open the keys of the rows that refer to rows which may be called otherwise now."""
    rows = file.rows()
    for name, table in look.tables.items() if renamed else ():
        columns = [column for column, reference in table.references.items() if reference.table == target]
        if columns and not rows.get(name):
            continue
        if not table.indexed.issuperset(columns):
            return False
        reader = Reader(look.connection, table)
        for column in columns:
            for rowid in renamed:
                file.open(name, filter(None, map(packed, reader.keys_where(column, rowid))), turn)
    return True


def _compared(file: IndexFile, look: Look, table: Table, ranges: Iterable[Range]) -> Iterator[tuple[int, bytes, bytes]]:
    """Yield each row of the ranges, with its key in the index, which is brought up, and in the live database."""
    reader = Reader(look.connection, table)
    for first, last in _joined(ranges):
        rows, begin, is_last = reader.keys(first + 1, last), first + 1, False
        while not is_last:
            chunk = {rowid: packed(key) for rowid, key in islice(rows, _CHUNK)}
            is_last = len(chunk) < _CHUNK
            end = last if is_last else max(chunk)
            known = file.known(table.name, begin, end)
            came = [(rowid, key) for rowid, key in chunk.items() if known.get(rowid) != key]
            went = [rowid for rowid in known if rowid not in chunk]
            file.change(table.name, came, went, more=len(chunk) - len(known))
            for rowid in known.keys() | chunk.keys():
                yield rowid, known.get(rowid, b""), chunk.get(rowid, b"")
            begin = end + 1


def _joined(ranges: Iterable[Range]) -> Iterator[Range]:
    """Yield ranges without those that another one holds."""
    end = ALL[0]
    for first, last in sorted(ranges, key=lambda span: (span[0], -span[1])):
        if last > end:
            yield max(first, end), last
            end = last


def _difference(live: Path, mirror: MirrorFile, deadline: Deadline) -> dict[str, list[Key]]:
    with open_to_compare(live, mirror.path, deadline=deadline) as connection:
        return {one.ours.name: one.keys(connection) for one in difference(connection) if not one.is_empty}
