"""The daily comparison of everything, a slice at a time: finds what the row index has missed.

A slice compares some rows of the live database with the mirror in the transaction for which the index says which keys
are open, so whatever the worker writes meanwhile is open or not seen. First every live row is looked for in the mirror,
then every row of the mirror in the live database; a row lies at the same rowid there, or anywhere under its key. Where
the next slice begins is noted now and then: a process that is killed repeats a few slices.
"""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from membridge.aio.deadline import Deadline
from membridge.claudemem.connection import open_frozen
from membridge.claudemem.sql import FIRST_ROWID, LAST_ROWID, Connection
from membridge.claudemem.tables import Table, shared_columns, travelling_tables
from membridge.merge.row_index import MirrorFile, RowIndex, Standing
from membridge.merge.rows import Key, Reader, key_of, shape_of
from membridge.merge.three_way import Row, edits
from membridge.system import clock, files

#: Name of the note in a project's folder.
AUDIT_FILE = "audit.json"
#: Seconds of comparing in one slice.
SLICE = 0.05
#: Slices after which it is noted how far the audit is.
NOTE_EVERY = 20
#: Times that an audit begins again because the mirror moved; then it goes on, and what it passed waits for the next.
RESTARTS = 3
#: Rows that are read at once.
_CHUNK = 64


class AuditNote(msgspec.Struct, frozen=True):
    """How far an audit is, and when the last complete one ended; `since` is when audits of this project began.

    `side`, `table` and `row` say where the next slice begins: in the live database (0) or the mirror (1).
    """

    since: str = ""
    ended_at: str = ""
    began_at: str = ""
    mirror: str = ""
    restarts: int = 0
    side: int = 0
    table: str = ""
    row: int = FIRST_ROWID

    @property
    def is_under_way(self) -> bool:
        """Whether an audit has begun and not ended."""
        return bool(self.began_at)


@dataclass(frozen=True, slots=True)
class Slice:
    """What a slice found: how many keys had been missed, and whether it was the last one."""

    missed: int
    is_last: bool


def noted(path: Path) -> AuditNote:
    """Return the note at `path`; an empty one where there is none, or a damaged one. Blocking."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=AuditNote)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return AuditNote()


class Audit:
    """The audits of one project. Blocking; for one caller at a time, who keeps pushes and pulls away."""

    def __init__(self, path: Path, index: RowIndex, *, seconds: float | None = None) -> None:
        """Keep the note at `path`; a slice compares for `seconds`."""
        self._path, self._index, self._seconds = path, index, SLICE if seconds is None else seconds
        self._note: AuditNote | None = None
        self._unsaved = 0
        self._tables: dict[str, tuple[int, dict[str, Table]]] = {}

    @property
    def note(self) -> AuditNote:
        """How far it is. The first call reads the file, and makes one for a new project."""
        if self._note is None:
            self._note = noted(self._path)
            if not self._note.since:
                self._keep(msgspec.structs.replace(self._note, since=clock.stamp()), now=True)
        return self._note

    def go_on(self, mirror: MirrorFile, *, deadline: Deadline) -> Slice:
        """Compare a slice; what had been missed is counted, and found from now on.

        Errors: the live database's, those of the mirror's file, IndexFileError.
        """
        note, missed = self._begun(mirror.sha256), 0
        with (
            self._index.looking(mirror, deadline=deadline) as (standing, live),
            open_frozen(mirror.path, deadline=deadline) as canonical,
        ):
            canonical.run("BEGIN")
            tables = self._read("live", live), self._read(str(mirror.path), canonical)
            comparison = _Comparison(live, canonical, tables, standing)
            place = comparison.go_on((note.side, note.table, note.row), until=time.monotonic() + self._seconds)
            missed = comparison.missed
        if missed:
            self._index.distrust(missed)
        if place is None:
            self._keep(AuditNote(since=note.since, ended_at=clock.stamp()), now=True)
        else:
            side, table, row = place
            self._keep(msgspec.structs.replace(note, side=side, table=table, row=row), now=False)
        return Slice(missed, is_last=place is None)

    def _begun(self, mirror: str) -> AuditNote:
        """Return the note of an audit that is under way: begun now, begun again, or gone on with."""
        note = self.note
        if not note.is_under_way:
            note = AuditNote(since=note.since, ended_at=note.ended_at, began_at=clock.stamp(), mirror=mirror)
        elif note.mirror != mirror and note.restarts < RESTARTS:
            note = msgspec.structs.replace(
                note, mirror=mirror, restarts=note.restarts + 1, side=0, table="", row=FIRST_ROWID
            )
        elif note.mirror != mirror:
            # The live rows stay where they are; those of another mirror may lie elsewhere.
            there = note.side == 0
            note = msgspec.structs.replace(
                note, mirror=mirror, table=note.table if there else "", row=note.row if there else FIRST_ROWID
            )
        return note

    def _keep(self, note: AuditNote, *, now: bool) -> None:
        self._note, self._unsaved = note, self._unsaved + 1
        if now or self._unsaved >= NOTE_EVERY:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            files.save(self._path, msgspec.json.encode(note))
            self._unsaved = 0

    def _read(self, name: str, connection: Connection) -> dict[str, Table]:
        """Return what travels in a database, read once per version of its schema."""
        version = connection.number("PRAGMA schema_version")
        known = self._tables.get(name)
        if known is None or known[0] != version:
            self._tables = {one: tables for one, tables in self._tables.items() if one == "live"}
            known = self._tables[name] = (version, travelling_tables(connection))
        return known[1]


#: Where a slice begins: the side, the table, the rowid.
_Place = tuple[int, str, int]


class _Comparison:
    """The comparison of two databases, each in a transaction; `missed` counts keys that differ and are not open."""

    def __init__(
        self,
        live: Connection,
        canonical: Connection,
        tables: tuple[Mapping[str, Table], Mapping[str, Table]],
        standing: Standing,
    ) -> None:
        self.live, self.canonical = live, canonical
        self.ours, self.theirs = tables
        self._open = {name: frozenset(keys) for name, keys in standing.open.items()}
        self._compared: set[tuple[str, Key]] = set()
        self.missed = 0

    def go_on(self, place: _Place, *, until: float) -> _Place | None:
        """Compare from a place on until an instant; return where to go on, None at the end. One row at least."""
        for side, name, begin in self._left(place):
            table, first = _TableComparison(self, name, side), begin
            while rows := table.rows(first):
                for rowid, row in rows:
                    if row is not None:
                        table.check(row)
                    first = min(rowid + 1, LAST_ROWID)
                    if time.monotonic() >= until:
                        return side, name, first
                if rows[-1][0] == LAST_ROWID:
                    break
        return None

    def differs(self, name: str, key: Key, *, edited: bool) -> None:
        """Note what was found under a key."""
        if edited and key not in self._open.get(name, frozenset()):
            self.missed += 1

    def is_new(self, name: str, key: Key) -> bool:
        """Whether a key was not compared in this slice yet."""
        is_new = (name, key) not in self._compared
        self._compared.add((name, key))
        return is_new

    def _left(self, place: _Place) -> Iterator[_Place]:
        side, table, row = place
        shared = sorted(self.ours.keys() & self.theirs.keys())
        for name in shared if side == 0 else ():
            if name >= table:
                yield 0, name, row if name == table else FIRST_ROWID
        for name in shared:
            if side == 0 or name >= table:
                yield 1, name, row if (side, table) == (1, name) else FIRST_ROWID


class _TableComparison:
    """One table: the rows of one side are looked for on the other."""

    def __init__(self, whole: _Comparison, name: str, side: int) -> None:
        ours, theirs = whole.ours[name], whole.theirs[name]
        self._whole, self._name, self._columns = whole, name, shared_columns(ours, theirs)
        self._ours, self._theirs = Reader(whole.live, ours), Reader(whole.canonical, theirs)
        self._here, self._there = (self._ours, self._theirs) if side == 0 else (self._theirs, self._ours)
        self._shape = shape_of(ours, self._columns)

    def rows(self, first: int) -> list[tuple[int, Row | None]]:
        """Return rowids from one on, each with its row unless the same row lies there on the other side."""
        try:
            here = self._here.values_from(self._columns, first, _CHUNK)
            there = {row[0]: row for row in self._there.values_from(self._columns, first, _CHUNK)}
        except UnicodeDecodeError:
            return [(row.rowid, row) for row in self._here.rows_from(first, _CHUNK) if row.rowid is not None]
        found = [(row[0], row == there.get(row[0])) for row in here]
        return [
            (rowid, None if is_same else self._here.row(rowid)) for rowid, is_same in found if isinstance(rowid, int)
        ]

    def check(self, row: Row) -> None:
        """Look for a row on the other side."""
        key = key_of(self._here.table, row.values)
        if any(isinstance(part, bytes) for part in key) and row.rowid is not None and not self._here.key(row.rowid):
            # Text that is not UTF-8 names nothing, and does not travel.
            return
        if self._whole.is_new(self._name, key):
            found = edits(self._theirs.bucket(key), self._ours.bucket(key), self._shape)
            self._whole.differs(self._name, key, edited=bool(found))
