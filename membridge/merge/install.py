"""Make a snapshot this machine's database where there is none."""

import os
from contextlib import closing
from pathlib import Path

import apsw

from membridge.aio.deadline import Deadline
from membridge.claudemem.connection import MEMORY_SUFFIX, SEARCH_SUFFIXES
from membridge.claudemem.database import device_id
from membridge.claudemem.sql import Connection
from membridge.claudemem.tables import Table, quoted, travelling_tables
from membridge.claudemem.translate import translated
from membridge.errors import ConflictError
from membridge.merge.fill import fill
from membridge.merge.memory_file import MemoryFile
from membridge.merge.report import Source
from membridge.system import files

#: Endings of the names of the memory file, behind a database's, that is made to build that of another database.
_FILLED = (MEMORY_SUFFIX, f"{MEMORY_SUFFIX}-wal", f"{MEMORY_SUFFIX}-shm")


def install(state: Path, live: Path, *, source: Source, deadline: Deadline) -> None:
    """Make a database of the memory in `state` the live one where there is none yet; never over a file that is there.

    `state` is a memory file, or a database of claude-mem that no program writes. Atomic. Every row becomes one of
    another machine's: synced, with its origin; what is machine-local starts empty. Errors: ConflictError when a
    database has appeared meanwhile, DiskFullError and the databases'; nothing is left behind.
    """
    live = live.resolve()
    staged = _staged(live)
    with translated(live):
        # Never written over: the file may have another name by now, and the journal would be replayed into the new one.
        sweep(live)
        try:
            live.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            build_from(state, staged, source=source, own_device=device_id(live), deadline=deadline)
            _publish(staged, live)
        finally:
            sweep(live)


def build_from(state: Path, target: Path, *, source: Source, own_device: str | None = None, deadline: Deadline) -> None:
    """Make `target`, which is not there yet, a database of the memory in `state`. Errors: as `install`."""
    if state.suffix == MEMORY_SUFFIX:
        with closing(MemoryFile(state, deadline=deadline)) as memory:
            schema = memory.schema()
        from membridge.merge.build import build  # noqa: PLC0415 - an idle node builds nothing

        build(state, schema, target, source=source, deadline=deadline)
        _raise_sequences(target, own_device)
        return
    filled = target.with_name(f"{target.name}{MEMORY_SUFFIX}")
    try:
        with closing(MemoryFile(filled, deadline=deadline, building=True)) as memory:
            fill(memory, state, is_live=False, deadline=deadline)
        build_from(filled, target, source=source, own_device=own_device, deadline=deadline)
    finally:
        for suffix in _FILLED:
            files.remove(Path(f"{target}{suffix}"))


def put(source: Path, live: Path, *, deadline: Deadline) -> None:
    """Make a copy of `source`, as it is, the live database where there is none. Errors and atomicity as `install`."""
    live = live.resolve()
    staged = _staged(live)
    with translated(live):
        sweep(live)
        try:
            live.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            import shutil  # noqa: PLC0415 - it brings three archive formats along

            shutil.copyfile(source, staged)
            deadline.check("installing the database")
            _publish(staged, live)
        finally:
            sweep(live)


def sweep(live: Path) -> None:
    """Delete what an install that was killed has left beside the database; killed late, it is a second name of it."""
    staged = _staged(live)
    with translated(live):
        for suffix in ("", "-journal", "-wal", "-shm", *SEARCH_SUFFIXES, *_FILLED):
            Path(f"{staged}{suffix}").unlink(missing_ok=True)


def _staged(live: Path) -> Path:
    # Beside the file itself: the database's path may be a link to another disk.
    live = live.resolve()
    return live.with_name(f".{live.name}.membridge-install")


def _raise_sequences(target: Path, own_device: str | None) -> None:
    connection = Connection(apsw.Connection(str(target), flags=apsw.SQLITE_OPEN_READWRITE))
    try:
        with connection.apsw:
            for table in travelling_tables(connection).values():
                _raise_sequence(connection, table, own_device)
    finally:
        connection.close()


def _raise_sequence(connection: Connection, table: Table, own_device: str | None) -> None:
    """Let new rowids begin beyond every one in use, and beyond those this machine used before it lost its database."""
    if not connection.exists("SELECT 1 FROM sqlite_schema WHERE name = 'sqlite_sequence'"):
        return
    used = "SELECT max(rowid) AS id FROM {table}"
    if own_device is not None and table.has("origin_local_id"):
        used += " UNION ALL SELECT max(CAST(origin_local_id AS INTEGER)) FROM {table} WHERE origin_device_id = :device"
    used = used.format(table=quoted(table.name))
    connection.run(
        f"UPDATE sqlite_sequence SET seq = max(seq, (SELECT coalesce(max(id), 0) FROM ({used}))) WHERE name = :name",  # noqa: S608 - quoted
        {"name": table.name, "device": own_device} if ":device" in used else {"name": table.name},
    )


def _publish(staged: Path, live: Path) -> None:
    files.sync_path(staged)
    # Before it is the live one, of which nothing opens the file: see `open_files`.
    files.leave_cache(staged)
    # Leftovers of a deleted database would be replayed into the new one.
    for suffix in ("-wal", "-shm", "-journal"):
        stale = Path(f"{live}{suffix}")
        if stale.exists() and not live.exists():
            stale.rename(stale.with_name(f"{stale.name}.orphan"))
    try:
        os.link(staged, live)
    except FileExistsError as error:
        raise ConflictError(
            f"a database appeared at {live} during the pull", remedy="run `membridge pull` again: it merges"
        ) from error
    files.sync_path(live.parent)
