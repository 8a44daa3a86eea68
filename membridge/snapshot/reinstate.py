"""A backup put back into the live database, also into a damaged one.

A full copy takes the place of the database, whatever claude-mem wrote since. Any other backup is restored row by row:
what Membridge wrote since is taken back, and rows that only claude-mem wrote stay.

Only this machine's database changes. The mirror is forgotten first: without a base the next pull deletes nothing, so
that what other machines know comes back, and what only the backup has is new to them. What the database was is in a
backup, or beside the new one if it was damaged.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from membridge.aio import threads
from membridge.aio.deadline import Deadline
from membridge.claudemem import database, overwrite
from membridge.claudemem.overwrite import Condition
from membridge.commits.progress import ProgressTracker
from membridge.commits.temp_dir import temp_dir
from membridge.errors import DatabaseCorruptError, DatabaseInvalidError, NotFoundError
from membridge.merge import compare, install
from membridge.merge.compare import Comparison
from membridge.merge.put_back import changes
from membridge.merge.put_back import put_back as put_rows_back
from membridge.snapshot import backup_files, backups, undo_chain
from membridge.snapshot.backup_files import BackupFiles
from membridge.snapshot.backups import PUT_BACK
from membridge.snapshot.lane import Lane
from membridge.snapshot.undo_chain import Way
from membridge.system import clock, files
from schemas.commits import NEWEST, RowChange

_LIST = "run `membridge backups`"
_REPLACE = "run `membridge pull --replace`: it installs the newest snapshot and keeps a damaged database as a file"
_RESTORE = "run `membridge history` and go back to a snapshot with `membridge restore --seq N`"


@dataclass(frozen=True, slots=True)
class Reinstated:
    """What putting a backup back changes in the live database, or changed.

    `writes` counts the writes that are taken back row by row, 0 for a full copy. `damage` says what is wrong with the
    live database, nothing for a sound one; `saved` is the backup that was made of it, `aside` where a damaged one is
    kept.
    """

    backup: str
    created_at: str
    changes: Comparison
    writes: int = 0
    damage: str = ""
    saved: Path | None = None
    aside: Path | None = None


async def preview(lane: Lane, name: str, *, limit: int, progress: ProgressTracker, deadline: Deadline) -> Reinstated:
    """Return what putting the backup `name` back would change. Errors: as `put_back`."""
    return (await _seen(lane, name, limit=limit, progress=progress, deadline=deadline))[0]


async def put_back(
    lane: Lane, name: str, *, limit: int = 0, progress: ProgressTracker, deadline: Deadline
) -> Reinstated:
    """Make the live database what it was in the backup `name`; `newest` is the newest one that can be restored.

    `newest` is never one that was made before another one was put back: the command that was killed and is run again
    would undo itself. Killed at any point, the same command again ends it; a damaged database may be gone for a moment.
    Errors: NotFoundError, DatabaseCorruptError for a damaged backup, DatabaseBusyError while another program has a
    damaged database open, the database's, DiskFullError.
    """
    seen, way = await _seen(lane, name, limit=limit, progress=progress, deadline=deadline)
    if way.base is None:
        return await _take_back(lane, seen, way, limit=limit, progress=progress, deadline=deadline)
    return await _put_in_place(lane, seen, way, way.base, progress=progress, deadline=deadline)


async def _take_back(
    lane: Lane, seen: Reinstated, way: Way, *, limit: int, progress: ProgressTracker, deadline: Deadline
) -> Reinstated:
    save = backups.BeforeWrite(lane, PUT_BACK, progress, deadline, spare={seen.backup})
    await threads.run(lane.mirror.forget)
    with progress.step("restore"):
        done = await threads.run(put_rows_back, lane.database, way.rows, save=save, deadline=deadline)
        found = await threads.run(save.changes, limit=limit, deadline=deadline)
    for table, rows in done.kept.items():
        found.counts.setdefault(table, {})[RowChange.KEPT] = rows
    return replace(seen, changes=found, saved=save.path)


async def _put_in_place(
    lane: Lane, seen: Reinstated, way: Way, base: Path, *, progress: ProgressTracker, deadline: Deadline
) -> Reinstated:
    damage, saved, aside = seen.damage, None, None
    folder = lane.folder / "reinstated"
    staged = folder / "backup.db"
    # A name of its own: the next run clears what a killed one left. Only one process at a time works in this folder.
    await threads.run(files.fresh_folder, folder)
    try:
        usable = await threads.run(overwrite.condition, lane.database, deadline=deadline) is Condition.USABLE
        with progress.step("copy"):
            live = lane.database if usable and not damage else None
            await threads.run(overwrite.make_ready, base, staged, live=live, deadline=deadline)
            if way.rows:
                await threads.run(put_rows_back, staged, way.rows, save=None, deadline=deadline)
        if usable:
            # Of a damaged one too, as far as it can be read: it is overwritten page by page.
            try:
                with progress.step("backup"):
                    # What is put back stays until it is there: it may be the next one that retention deletes.
                    spare = {seen.backup, base.stem}
                    saved = await threads.run(backups.take, lane, PUT_BACK, spare=spare, deadline=deadline)
            except DatabaseCorruptError as error:
                usable, damage = False, error.message
        await threads.run(lane.mirror.forget)
        with progress.step("restore"):
            if usable:
                await threads.run(overwrite.overwrite, staged, lane.database, deadline=deadline)
            else:
                if await threads.run(lane.database.exists):
                    aside = await threads.run(overwrite.set_aside, lane.database)
                await threads.run(install.put, staged, lane.database, deadline=deadline)
            await threads.run(database.quick_check, lane.database, deadline=deadline)
    finally:
        await threads.run(files.remove, folder)
    return replace(seen, damage=damage, saved=saved, aside=aside)


async def _seen(
    lane: Lane, name: str, *, limit: int, progress: ProgressTracker, deadline: Deadline
) -> tuple[Reinstated, Way]:
    with progress.step("check"):
        damage = await threads.run(_damage, lane, deadline)
        backup, way = await threads.run(_chosen, lane, name, damage, deadline)
    with progress.step("compare"):
        if way.base is None:
            found = await threads.run(changes, lane.database, way.rows, limit=limit, deadline=deadline)
        elif not way.rows:
            found = await threads.run(_compared, lane, way.base, damage, limit, deadline)
        else:
            async with temp_dir(lane) as folder:
                state = folder / "state.db"
                await threads.run(database.backup, way.base, state, deadline=deadline)
                await threads.run(put_rows_back, state, way.rows, save=None, deadline=deadline)
                found = await threads.run(_compared, lane, state, damage, limit, deadline)
    return Reinstated(backup.id, clock.stamp(backup.taken), found, way.writes if way.base is None else 0, damage), way


def _chosen(lane: Lane, name: str, damage: str, deadline: Deadline) -> tuple[BackupFiles, Way]:
    found = [one for one in backup_files.found(lane.backups) if one.full or undo_chain.rows_of(one)]
    live = lane.database if lane.database.exists() and not damage else None
    if name == NEWEST:
        for one, way in _usable(lane, found, live, deadline):
            return one, way
        raise NotFoundError(
            f"no backup of {lane.name} can be restored" if found else f"there is no backup of {lane.name}",
            remedy=_REPLACE if live is None else _RESTORE,
        )
    backup = next((one for one in found if one.id == name), None)
    if backup is None:
        raise NotFoundError(f"there is no backup {name} of {lane.name}", remedy=_LIST)
    way = undo_chain.way_to(backup, backup_files.own(lane.backups), live, deadline=deadline)
    if way is None:
        raise NotFoundError(
            f"backup {name} cannot be restored: its rows belong to another database, and no newer full copy is left",
            remedy=f"{_LIST} and choose a full copy",
        )
    if way.base is not None and not _is_sound(way.base, deadline):
        raise DatabaseCorruptError(f"backup {way.base.stem} is damaged", remedy=f"{_LIST} and choose another one")
    return backup, way


def _usable(
    lane: Lane, found: list[BackupFiles], live: Path | None, deadline: Deadline
) -> Iterator[tuple[BackupFiles, Way]]:
    """Yield the backups that can be restored, newest first."""
    own = backup_files.own(lane.backups)
    for one in reversed(found):
        if one.reason == PUT_BACK:
            continue
        try:
            way = undo_chain.way_to(one, own, live, deadline=deadline)
        except DatabaseCorruptError:
            continue
        if way is not None and (way.base is None or _is_sound(way.base, deadline)):
            yield one, way


def _is_sound(path: Path, deadline: Deadline) -> bool:
    try:
        database.quick_check(path, deadline=deadline)
    except DatabaseInvalidError:
        return False
    return True


def _damage(lane: Lane, deadline: Deadline) -> str:
    try:
        if overwrite.condition(lane.database, deadline=deadline) is Condition.USABLE:
            database.quick_check(lane.database, deadline=deadline)
        elif lane.database.exists():
            return f"{lane.database} is damaged: SQLite cannot open it"
    except DatabaseCorruptError as error:
        return error.message
    return ""


def _compared(lane: Lane, state: Path, damage: str, limit: int, deadline: Deadline) -> Comparison:
    live = lane.database
    if damage or not live.exists():
        return compare.compare(None, state, limit=limit, deadline=deadline)
    # Compared the other way round: the live database is the one that may be written meanwhile.
    return compare.compare(state, live, limit=limit, is_live=True, deadline=deadline).turned()
