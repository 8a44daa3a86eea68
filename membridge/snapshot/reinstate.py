"""A backup put in the place of the live database, also of a damaged one.

Only this machine's database changes. The mirror is forgotten first: without a base the next pull deletes nothing, so
that what other machines know comes back, and what only the backup has is new to them. The database that was there is in
a backup, or beside the new one if it is damaged.
"""

from dataclasses import dataclass
from pathlib import Path

from membridge.aio import threads
from membridge.aio.deadline import Deadline
from membridge.claudemem import database, overwrite
from membridge.claudemem.overwrite import Condition
from membridge.commits.progress import ProgressTracker
from membridge.errors import DatabaseCorruptError, DatabaseInvalidError, NotFoundError
from membridge.merge import compare, install
from membridge.merge.compare import Comparison
from membridge.snapshot import backups
from membridge.snapshot.lane import Lane
from membridge.system import files
from schemas.commits import NEWEST
from schemas.snapshot import Backup

_LIST = "run `membridge backups`"
_REPLACE = "run `membridge pull --replace`: it installs the newest snapshot and keeps a damaged database as a file"
_RESTORE = "run `membridge history` and go back to a snapshot with `membridge restore --seq N`"
#: The reason of the backup that is taken before another one is put back. `newest` never means such a one: the command
#: that was killed and is run again would undo itself.
_REASON = "backup"


@dataclass(frozen=True, slots=True)
class Reinstated:
    """What putting `backup` back changes in the live database, or changed.

    `damage` says what is wrong with the live database, nothing for a sound one; `saved` is the backup that was taken of
    it, `aside` where a damaged one is kept.
    """

    backup: Backup
    changes: Comparison
    damage: str = ""
    saved: Path | None = None
    aside: Path | None = None


async def preview(lane: Lane, name: str, *, limit: int, progress: ProgressTracker, deadline: Deadline) -> Reinstated:
    """Return what putting the backup `name` back would change. Errors: as `put_back`."""
    with progress.step("check"):
        backup = await threads.run(_chosen, lane, name, deadline)
        damage = await threads.run(_damage, lane, deadline)
    with progress.step("compare"):
        return await threads.run(_compared, lane, backup, damage, limit, deadline)


async def put_back(
    lane: Lane, name: str, *, limit: int = 0, progress: ProgressTracker, deadline: Deadline
) -> Reinstated:
    """Make the live database what the backup `name` is; `newest` is the newest sound one, as `_REASON` says.

    Killed at any point it leaves the database as it was, as the backup, or, if it was damaged, a moment without one:
    the same command again ends it. Errors: NotFoundError, DatabaseCorruptError for a damaged backup, DatabaseBusyError
    while another program has a damaged database open, the database's, DiskFullError.
    """
    seen = await preview(lane, name, limit=limit, progress=progress, deadline=deadline)
    path, damage, aside = Path(seen.backup.path), seen.damage, None
    # What is put back stays until it is there: it may be the next one that retention deletes.
    save = backups.BeforeWrite(lane, _REASON, progress, deadline, spare={path.name})
    folder = lane.folder / "reinstated"
    staged = folder / "backup.db"
    # A name of its own: the next run clears what a killed one left. Only one process at a time works in this folder.
    await threads.run(files.fresh_folder, folder)
    try:
        usable = await threads.run(overwrite.condition, lane.database, deadline=deadline) is Condition.USABLE
        with progress.step("copy"):
            live = lane.database if usable and not damage else None
            await threads.run(overwrite.make_ready, path, staged, live=live, deadline=deadline)
        if usable:
            # Of a damaged one too, as far as it can be read: it is overwritten page by page.
            try:
                await threads.run(save)
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
    return Reinstated(seen.backup, seen.changes, damage, save.path, aside)


def _chosen(lane: Lane, name: str, deadline: Deadline) -> Backup:
    found = backups.listed(lane)
    if name == NEWEST:
        for one in found:
            if one.reason != _REASON and _is_sound(one, deadline):
                return one
        sound = lane.database.exists() and not _damage(lane, deadline)
        raise NotFoundError(
            f"there is no backup of {lane.name} that SQLite can read"
            if found
            else f"there is no backup of {lane.name}",
            remedy=_RESTORE if sound else _REPLACE,
        )
    backup = next((one for one in found if one.id == name), None)
    if backup is None:
        raise NotFoundError(f"there is no backup {name} of {lane.name}", remedy=_LIST)
    if not _is_sound(backup, deadline):
        raise DatabaseCorruptError(f"backup {name} is damaged", remedy=f"{_LIST} and choose another one")
    return backup


def _is_sound(backup: Backup, deadline: Deadline) -> bool:
    try:
        database.quick_check(Path(backup.path), deadline=deadline)
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


def _compared(lane: Lane, backup: Backup, damage: str, limit: int, deadline: Deadline) -> Reinstated:
    path, live = Path(backup.path), lane.database
    if damage or not live.exists():
        return Reinstated(backup, compare.compare(None, path, limit=limit, deadline=deadline), damage)
    # Compared the other way round: the live database is the one that may be written meanwhile.
    found = compare.compare(path, live, limit=limit, is_live=True, deadline=deadline)
    return Reinstated(backup, found.turned())
