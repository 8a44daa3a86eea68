"""A claude-mem database as a file: its facts, a consistent copy of it, and its health.

The worker keeps writing meanwhile.
"""

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import apsw

from membridge.aio.deadline import Deadline
from membridge.claudemem.connection import bound, open_live, require_directory
from membridge.claudemem.sql import Connection
from membridge.claudemem.tables import quoted, travelling_tables
from membridge.claudemem.translate import RESTORE, translated
from membridge.errors import DatabaseCorruptError, DiskFullError
from membridge.system import files

#: Pages copied between two reports of progress; the source stays in one read transaction all the while.
_PAGES = 4_096
#: claude-mem's settings file, beside its database.
_SETTINGS = "settings.json"
_DEVICE = "CLAUDE_MEM_CLOUD_SYNC_DEVICE_ID"


@dataclass(frozen=True, slots=True)
class DatabaseFacts:
    """What `inspect` found; `rows` counts the tables that travel."""

    page_size: int
    page_count: int
    schema_version: int
    rows: dict[str, int]
    size_bytes: int


def inspect(path: Path, *, deadline: Deadline) -> DatabaseFacts:
    """Return the facts of the database at `path`, without writing to it.

    Errors: DatabaseMissingError, DatabaseInvalidError (not SQLite, or not claude-mem's), DatabaseCorruptError,
    DatabaseBusyError.
    """
    with open_live(path, deadline=deadline) as connection:
        connection.run("BEGIN")
        page_size, page_count = connection.number("PRAGMA page_size"), connection.number("PRAGMA page_count")
        return DatabaseFacts(
            page_size=page_size,
            page_count=page_count,
            schema_version=connection.number("SELECT max(version) FROM schema_versions"),
            rows={
                name: connection.number(f"SELECT count(*) FROM {quoted(name)}")  # noqa: S608 - from the schema, quoted
                for name in travelling_tables(connection)
            },
            size_bytes=page_size * page_count,
        )


def look(path: Path, *, deadline: Deadline) -> None:
    """Raise what keeps the database at `path` from being used at all: errors as `inspect`, without a look at rows."""
    with open_live(path, deadline=deadline) as connection:
        connection.run("SELECT max(version) FROM schema_versions")


def backup(live: Path, target: Path, *, deadline: Deadline) -> None:
    """Make `target` a consistent copy of the live database, as it is.

    Errors: the database's, DiskFullError, DeadlineExceededError; `target` is then gone.
    """
    require_directory(target)
    with translated(target):
        _forget(target)
    try:
        with open_live(live, deadline=deadline) as connection, translated(target):
            _check_room(connection, target)
            _copy_pages(connection, target, deadline)
        with translated(target):
            files.sync_path(target)
    except BaseException:
        with suppress(OSError):
            _forget(target)
        raise


def quick_check(path: Path, *, deadline: Deadline) -> None:
    """Raise DatabaseCorruptError when SQLite's quick check finds damage."""
    with open_live(path, deadline=deadline) as connection:
        check_tables(connection, path, [])


def check_tables(connection: Connection, path: Path, names: Sequence[str]) -> None:
    """Run SQLite's quick check over the named tables, or the whole database; raise DatabaseCorruptError."""
    for pragma in [f"PRAGMA quick_check({quoted(name)})" for name in names] or ["PRAGMA quick_check"]:
        finding = connection.row(pragma)
        if finding != ("ok",):
            raise DatabaseCorruptError(
                f"database {path} is damaged: {finding[0] if finding else 'no answer'}",
                remedy=RESTORE,
            )


def device_id(database: Path) -> str | None:
    """Return the device id of claude-mem's own sync on this machine, None when it has none."""
    try:
        settings: object = json.loads((database.resolve().parent / _SETTINGS).read_bytes())
    except (OSError, ValueError):
        return None
    for holder in (settings, _member(settings, "env")):
        found = _member(holder, _DEVICE)
        if isinstance(found, str) and found:
            return found
    return None


def _forget(target: Path) -> None:
    for leftover in (target, Path(f"{target}-wal"), Path(f"{target}-shm"), Path(f"{target}-journal")):
        leftover.unlink(missing_ok=True)


def _copy_pages(connection: Connection, target: Path, deadline: Deadline) -> None:
    # One read transaction for all steps: a worker that writes meanwhile would restart the copy, for ever if it is busy.
    connection.run("BEGIN")
    connection.run("SELECT 1 FROM sqlite_schema LIMIT 1")
    copy = Connection(apsw.Connection(str(target)))
    try:
        bound(copy, deadline)
        copy.run("PRAGMA synchronous = OFF")
        with copy.apsw.backup("main", connection.apsw, "main") as pages:
            while not pages.done:
                pages.step(_PAGES)
                deadline.check("copying the database")
        # A copy needs no WAL: it is opened without leaving files beside it.
        copy.run("PRAGMA journal_mode = DELETE")
    finally:
        copy.close()


def _check_room(connection: Connection, target: Path) -> None:
    needed = connection.number("PRAGMA page_count") * connection.number("PRAGMA page_size")
    free = files.free_bytes(target.parent)
    if free < needed:
        raise DiskFullError(f"no room to write {target}: {needed} bytes needed, {free} free")


def _member(holder: object, name: str) -> object:
    return holder.get(name) if isinstance(holder, dict) else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType] - JSON of a foreign program
