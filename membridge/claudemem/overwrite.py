"""Replace the live database with a file: a usable one is overwritten through SQLite, a damaged one moved aside.

Nothing is ever renamed over a usable database: another program's connections would go on writing to the old file.
"""

from enum import Enum, auto
from pathlib import Path

import apsw

from membridge.aio.deadline import Deadline
from membridge.claudemem import database
from membridge.claudemem.connection import frozen_uri, open_live, resolve
from membridge.claudemem.holders import COMPANIONS, Holder, holders
from membridge.claudemem.sql import Connection
from membridge.claudemem.translate import translated
from membridge.errors import (
    DatabaseBusyError,
    DatabaseCorruptError,
    DatabaseInvalidError,
    DatabaseMissingError,
    DiskFullError,
)
from membridge.system import clock, files

#: Pages written between two checks of the deadline, under the write lock.
_PAGES = 4_096
#: claude-mem's queue of pending work.
_PENDING = "pending_messages"


class Condition(Enum):
    """The state of the live database: absent, usable by SQLite, or damaged."""

    MISSING = auto()
    USABLE = auto()
    DAMAGED = auto()


def condition(path: Path, *, deadline: Deadline) -> Condition:
    """Return the state of the live database. A usable one may still have damaged pages.

    Errors: DatabaseInvalidError for the database of another program, and where the file may not be read;
    DatabaseBusyError.
    """
    try:
        with open_live(path, deadline=deadline):
            return Condition.USABLE
    except DatabaseMissingError:
        return Condition.MISSING
    except DatabaseCorruptError:
        return Condition.DAMAGED
    except DatabaseInvalidError:
        if _is_empty(path):
            return Condition.DAMAGED
        raise


def make_ready(backup: Path, staged: Path, *, live: Path | None, deadline: Deadline) -> None:
    """Make `staged` a copy of `backup` that can take the place of `live`, which is None where it cannot be read.

    Work that was pending then is left out: the worker has long done it. Ids go on where those of `live` end, as SQLite
    never gives one twice, and pages get its size. Errors: the database's, DiskFullError.
    """
    database.backup(backup, staged, deadline=deadline)
    page_size, ids = (0, {}) if live is None else _facts(live, deadline)
    with translated(staged):
        connection = Connection(apsw.Connection(str(staged), flags=apsw.SQLITE_OPEN_READWRITE))
        try:
            connection.apsw.config(apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER, 0)
            connection.run("PRAGMA foreign_keys = OFF")
            with connection.apsw:
                if connection.exists("SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?", (_PENDING,)):
                    connection.run(f"DELETE FROM {_PENDING}")  # noqa: S608 - a constant
                for table, last in ids.items():
                    _raise_id(connection, table, last)
            if page_size and page_size != connection.number("PRAGMA page_size"):
                connection.run(f"PRAGMA page_size = {page_size}; VACUUM")
        finally:
            connection.close()


def overwrite(source: Path, live: Path, *, deadline: Deadline) -> None:
    """Make the usable database `live` what `source` is, in one transaction; the worker may keep running.

    Errors: the database's, DiskFullError; `live` is then as before.
    """
    if files.free_bytes(live.resolve().parent) < source.stat().st_size:
        raise DiskFullError(
            f"no room to write {live}: {source.stat().st_size} bytes needed",
            remedy="free some space and try again; nothing was changed",
        )
    with open_live(live, deadline=deadline) as target:
        frozen = apsw.Connection(frozen_uri(source), flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI)
        try:
            with target.apsw.backup("main", frozen, "main") as pages:
                while not pages.done:
                    # Checked before: the last step commits.
                    deadline.check("restoring the backup")
                    pages.step(_PAGES)
        finally:
            frozen.close()


def set_aside(live: Path) -> Path:
    """Move a damaged database and what SQLite keeps beside it to another name, which is returned.

    Raises DatabaseBusyError while another program has it open: that would go on writing to the moved file.
    """
    real = resolve(live)
    if others := holders(real):
        raise _held(live, others)
    aside = real.with_name(f"{real.name}.damaged-{clock.now().strftime('%Y%m%dT%H%M%S%fZ')}")
    with translated(live):
        _move(real, aside)
        if others := holders(aside):
            # It was opened between the check and the move; that program would not see a new file in its place.
            _move(aside, real)
            raise _held(live, others)
    return aside


def _facts(live: Path, deadline: Deadline) -> tuple[int, dict[str, int]]:
    """Return the page size of a database, and the highest id that each of its tables has given."""
    with open_live(live, deadline=deadline) as connection:
        rows = connection.rows("SELECT name, seq FROM sqlite_sequence")
        return connection.number("PRAGMA page_size"), {str(name): seq for name, seq in rows if isinstance(seq, int)}


def _raise_id(connection: Connection, table: str, last: int) -> None:
    if not connection.exists("SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?", (table,)):
        return
    if connection.exists("SELECT 1 FROM sqlite_sequence WHERE name = ?", (table,)):
        connection.run("UPDATE sqlite_sequence SET seq = max(seq, ?) WHERE name = ?", (last, table))
    else:
        connection.run("INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", (table, last))


def _is_empty(path: Path) -> bool:
    """Whether a SQLite database has no table at all: a file that was cut to nothing is one."""
    with translated(path):
        connection = Connection(apsw.Connection(str(resolve(path)), flags=apsw.SQLITE_OPEN_READONLY))
        try:
            return not connection.exists("SELECT 1 FROM sqlite_schema LIMIT 1")
        except apsw.Error:
            return False
        finally:
            connection.close()


def _move(source: Path, target: Path) -> None:
    source.rename(target)
    for end in COMPANIONS:
        beside = Path(f"{source}{end}")
        if beside.exists():
            beside.rename(f"{target}{end}")
    files.sync_path(target.parent)


def _held(live: Path, others: list[Holder]) -> DatabaseBusyError:
    names = ", ".join(map(str, others))
    return DatabaseBusyError(
        f"the damaged database {live} is held open by {names}",
        remedy=f"stop it (`kill {others[0].pid}`; claude-mem starts its worker again) and run the command once more",
    )
