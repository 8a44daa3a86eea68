"""Connections to claude-mem's database that are safe beside its running worker.

One SQLite library for all of them (apsw's, which is free of the WAL-reset bug), never a checkpoint of the worker's WAL,
never a memory map. Nothing else in the process may open and close a live database's file: that would drop the locks.
"""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import apsw

from membridge.aio.deadline import Deadline
from membridge.claudemem.patience import Patience
from membridge.claudemem.sql import Connection
from membridge.claudemem.tables import MEMORY_FILE
from membridge.claudemem.translate import translated
from membridge.errors import DatabaseInvalidError, DatabaseMissingError

#: Virtual machine steps between two checks of the deadline: under a millisecond of work.
_STEPS = 20_000
#: How the names of memory files end (`merge.memory_file`); they may be written while they are read.
MEMORY_SUFFIX = ".memory"
#: Endings of the names of the files, behind the database's, in which the search indexes of a new one are made.
SEARCH_SUFFIXES = ("-search", "-search2")
#: Milliseconds to wait for another user of a memory file, who needs it for himself only a moment.
_MEMORY_WAIT = 10_000
#: Tables without which a SQLite database is not claude-mem's.
_SIGNATURE = frozenset({"sdk_sessions", "observations", "session_summaries", "schema_versions"})


def resolve(path: Path) -> Path:
    """Return the real path: a WAL belongs to a path, and two names of one file must not get two.

    Raises DatabaseMissingError, or DatabaseInvalidError for what is not a file.
    """
    with translated(path):
        real = path.resolve(strict=True)
    if not real.is_file():
        raise DatabaseInvalidError(f"{path} is not a file", remedy="check CLAUDE_MEM_DB; it names claude-mem.db")
    return real


@contextmanager
def open_live(path: Path, *, deadline: Deadline) -> Generator[Connection]:
    """Open the live database for reading and writing beside the worker; errors in the body are translated.

    Waits for a lock as `Patience` says. Foreign keys are not enforced here: a cascade would delete rows that only this
    machine has.
    """
    real = resolve(path)
    with translated(path):
        connection = Connection(apsw.Connection(str(real), flags=apsw.SQLITE_OPEN_READWRITE))
        try:
            prepare(connection, real, deadline=deadline)
            check_is_claude_mem(connection, path)
            yield connection
        finally:
            connection.close()


@contextmanager
def open_frozen(path: Path, *, deadline: Deadline) -> Generator[Connection]:
    """Open a memory file, or a database file that no program writes: no locks then, no WAL, nothing left beside it."""
    real = resolve(path)
    with translated(path):
        connection = Connection(
            apsw.Connection(frozen_uri(real), flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI)
        )
        try:
            bound(connection, deadline)
            connection.apsw.set_busy_timeout(_MEMORY_WAIT)
            check_is_claude_mem(connection, path)
            yield connection
        finally:
            connection.close()


@contextmanager
def open_to_compare(path: Path, other: Path, *, deadline: Deadline) -> Generator[Connection]:
    """Open `path` read-only as `main` with `other`, as `open_frozen` opens it, attached as `theirs`."""
    real, frozen = resolve(path), resolve(other)
    with translated(path):
        connection = Connection(apsw.Connection(str(real), flags=apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_URI))
        try:
            prepare(connection, real, deadline=deadline)
            connection.run("PRAGMA query_only = ON")
            check_is_claude_mem(connection, path)
            with translated(other):
                connection.run("ATTACH ? AS theirs", (frozen_uri(frozen),))
                check_is_claude_mem(connection, other, schema="theirs")
            yield connection
        finally:
            connection.close()


@contextmanager
def open_frozen_pair(path: Path, other: Path, *, deadline: Deadline) -> Generator[Connection]:
    """Open `path` as `main` with `other` attached as `theirs`, both as `open_frozen` opens one."""
    frozen = resolve(other)
    with open_frozen(path, deadline=deadline) as connection, translated(other):
        connection.run("ATTACH ? AS theirs", (frozen_uri(frozen),))
        check_is_claude_mem(connection, other, schema="theirs")
        yield connection


@contextmanager
def open_to_build(path: Path, state: Path, *, deadline: Deadline) -> Generator[Connection]:
    """Open `path`, a new file, as `main` with the memory file `state`, which is only read, attached as `state`.

    A file that is not whole is of no use to anybody: nothing is forced to the disk before its end.
    """
    flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE | apsw.SQLITE_OPEN_URI
    with translated(path):
        connection = Connection(apsw.Connection(str(path), flags=flags))
        try:
            bound(connection, deadline)
            connection.run("PRAGMA synchronous = OFF; PRAGMA journal_mode = MEMORY; PRAGMA foreign_keys = OFF")
            connection.run("ATTACH ? AS state", (frozen_uri(state),))
            yield connection
        finally:
            connection.close()


def prepare(connection: Connection, path: Path, *, deadline: Deadline) -> None:
    """Give a connection to a live database the settings that are safe beside the worker."""
    connection.apsw.set_busy_handler(Patience(path, deadline).wait)
    connection.apsw.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    connection.apsw.wal_autocheckpoint(0)
    connection.run("PRAGMA mmap_size = 0; PRAGMA foreign_keys = OFF")
    bound(connection, deadline)


def bound(connection: Connection, deadline: Deadline) -> None:
    """Interrupt whatever the connection does when the deadline comes."""
    connection.apsw.set_progress_handler(lambda: deadline.passed, _STEPS)


def frozen_uri(path: Path) -> str:
    """Return the URI that opens a memory file or one that no program writes; any character may stand in the path."""
    frozen = "" if path.suffix == MEMORY_SUFFIX else "&immutable=1"
    return f"file:{quote(str(path))}?mode=ro{frozen}"


def check_is_claude_mem(connection: Connection, path: Path, *, schema: str = "main") -> None:
    """Raise DatabaseInvalidError when the tables are not claude-mem's, nor those of a memory file."""
    if connection.number(f"PRAGMA {schema}.application_id") == MEMORY_FILE:
        return
    found = connection.texts(f"SELECT name FROM {schema}.sqlite_schema WHERE type = 'table'")  # noqa: S608 - our own schema names
    if not _SIGNATURE.issubset(found):
        raise DatabaseInvalidError(
            f"{path} is not a claude-mem database", remedy="check CLAUDE_MEM_DB; it names claude-mem.db"
        )


def require_directory(target: Path) -> None:
    """Raise DatabaseMissingError when the folder of a file to be written is not there."""
    if not target.parent.is_dir():
        raise DatabaseMissingError(
            f"there is no folder {target.parent}", remedy="make the folder, or check CLAUDE_MEM_DB"
        )
