"""Marks that prove that a live database went back in time: numbers that only grow, and the position of its WAL.

A power cut with a disk that lies, a damaged WAL, an older file put in its place: each removes rows that
no program deleted. No single number shows every case, so several are noted, and each alone is proof:

- SQLite never gives an id of an AUTOINCREMENT table twice and notes the highest one. A lower note is no deletion.
- The newest rows of each such table. If a new row has the id of one of them, the table was at an earlier state when it
  was written: a worker that went on writing after the power cut brings the ids back up, but not to the same rows.
- The WAL: its salt, the number of its frames and the checksum over all of them. Fewer frames under the same salt, or
  another checksum at the same frame, is a WAL that lost its end. This also shows lost updates.
- The change counter of the file, which each checkpoint takes along.

A deletion changes none of them downwards. Not recognised: an older file with a WAL that was folded into it, when
only updates are missing from it and its pages happen to have been counted the same.
"""

from collections.abc import Collection
from pathlib import Path

import msgspec

from membridge.aio.deadline import Deadline
from membridge.claudemem import open_files, wal
from membridge.claudemem.connection import open_live
from membridge.claudemem.sql import Connection
from membridge.claudemem.tables import quoted, travelling_tables
from membridge.claudemem.wal import WalFile

#: Newest rows of each table that are noted: one is enough unless it is deleted later.
NEWEST = 8
#: Restarts of a WAL that count as going back: each adds one to the salt, and a new WAL begins with one by chance.
_RESTARTS = 1 << 16
_CHANGE_COUNTER = 24


class WalMark(msgspec.Struct, frozen=True):
    """The position of the WAL: `salt` and `total` (the checksum over its frames) as hex."""

    salt: str
    frames: int
    total: str


class Marks(msgspec.Struct, frozen=True):
    """The marks: the highest ids, the newest rows (id and birth), the end of the WAL, the change counter."""

    sequences: dict[str, int] = {}
    newest: dict[str, dict[int, int | str]] = {}
    wal: WalMark | None = None
    changes: int = 0


def read(path: Path, *, deadline: Deadline) -> Marks:
    """Return the marks of the live database at `path`. Errors: the database's."""
    marks, _ = look(path, Marks(), deadline=deadline)
    return marks


def look(path: Path, before: Marks, *, deadline: Deadline) -> tuple[Marks, str]:
    """Return the marks of the live database now, and what proves that it is behind `before`; empty if nothing does."""
    with open_live(path, deadline=deadline) as connection:
        connection.run("BEGIN")
        real = path.resolve()
        sequences = _sequences(connection)
        now = Marks(sequences, _newest(connection, sequences), _wal(real), _changes(real))
        return now, _behind(connection, real, before, now)


def _behind(connection: Connection, path: Path, before: Marks, now: Marks) -> str:
    tables = travelling_tables(connection)
    lower = sorted(
        name for name, mark in before.sequences.items() if now.sequences.get(name, 0 if name in tables else mark) < mark
    )
    if lower:
        return f"ids of {', '.join(lower)}"
    for name, rows in before.newest.items():
        birth = _birth(name)
        if name not in now.newest:
            continue
        for number, born in rows.items():
            found = connection.row(f"SELECT {birth} FROM {quoted(name)} WHERE rowid = ?", (number,))  # noqa: S608 - our own names, quoted
            if found is not None and found[0] != born:
                return f"row {number} of {name}"
    if now.changes < before.changes:
        return "the file's change counter"
    return "the WAL" if before.wal is not None and _wal_lost(path, before.wal, now.wal) else ""


def _sequences(connection: Connection) -> dict[str, int]:
    if not connection.exists("SELECT 1 FROM sqlite_schema WHERE name = 'sqlite_sequence'"):
        return {}
    rows = connection.rows("SELECT name, seq FROM sqlite_sequence")
    return {str(name): seq for name, seq in rows if isinstance(seq, int)}


def _newest(connection: Connection, counted: Collection[str]) -> dict[str, dict[int, int | str]]:
    found: dict[str, dict[int, int | str]] = {}
    for name, table in travelling_tables(connection).items():
        birth = _birth(name)
        # Where ids are not counted SQLite gives the highest one again after a deletion.
        if name in counted and table.has(birth):
            rows = connection.rows(f"SELECT rowid, {birth} FROM {quoted(name)} ORDER BY rowid DESC LIMIT ?", (NEWEST,))  # noqa: S608 - our own names, quoted
            found[name] = {
                number: born for number, born in rows if isinstance(number, int) and isinstance(born, int | str)
            }
    return found


def _birth(name: str) -> str:
    """Return the column that a row of a table keeps for life."""
    return "content_session_id" if name == "sdk_sessions" else "created_at_epoch"


def _changes(path: Path) -> int:
    counter = open_files.read(path, 4, _CHANGE_COUNTER)
    return int.from_bytes(counter, "big") if counter is not None else 0


def _wal(path: Path) -> WalMark | None:
    """Return where SQLite itself sees the end of the WAL. None without a WAL, or with an empty one."""
    state = wal.state(path)
    return WalMark(state.salt.hex(), state.frames, state.total.hex()) if state is not None and state.frames else None


def _wal_lost(path: Path, before: WalMark, now: WalMark | None) -> bool:
    if now is None:
        return False
    if now.salt != before.salt:
        # Each restart counts the first half of the salt up by one: an earlier generation has a lower one.
        steps = (int(now.salt[:8], 16) - int(before.salt[:8], 16) + (1 << 31)) % (1 << 32) - (1 << 31)
        return -_RESTARTS < steps < 0
    if now.frames <= before.frames:
        return now.frames < before.frames or now.total != before.total
    return _total_at(path, before) not in {None, before.total}


def _total_at(path: Path, mark: WalMark) -> str | None:
    """Return the checksum in the WAL at a frame of the same salt; None when the WAL has begun anew meanwhile."""
    try:
        with WalFile(path) as frames:
            frame = frames.frame(mark.frames)
    except FileNotFoundError:
        return None
    return frame.total.hex() if frame is not None and frame.salt.hex() == mark.salt else None
