"""The files of the backups folder: an instant and a reason, which are the backup's id, then what it holds.

`ID.db` is a full copy of the live database, `ID.undo` an undo record; a backup has either or both. Database files of
another name are a person's: they are listed and can be restored, and nothing here deletes them.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from membridge.system import clock, files

_STAMP = "%Y%m%dT%H%M%S.%fZ"
_STAMPED = re.compile(r"\d{8}T\d{6}\.\d{6}Z")
_FULL, _UNDO = ".db", ".undo"


@dataclass(frozen=True, slots=True)
class BackupFiles:
    """A backup: its id, when it was made and before what; the bytes of its full copy and record, 0 for none.

    `reason` is empty for a file that a person put here.
    """

    folder: Path
    id: str
    taken: datetime
    reason: str
    full: int = 0
    undo: int = 0

    @property
    def full_path(self) -> Path:
        """Where its full copy is, or would be."""
        return self.folder / f"{self.id}{_FULL}"

    @property
    def undo_path(self) -> Path:
        """Where its undo record is, or would be."""
        return self.folder / f"{self.id}{_UNDO}"

    @property
    def path(self) -> Path:
        """Its full copy, or its undo record if it has none."""
        return self.full_path if self.full else self.undo_path


def fresh(folder: Path, reason: str, known: Sequence[BackupFiles]) -> BackupFiles:
    """Return a backup that is to be made now, after those that are `known`, whatever the clock says."""
    now = clock.now()
    if known:
        now = max(now, known[-1].taken + timedelta(microseconds=1))
    return BackupFiles(folder, f"{now.strftime(_STAMP)}-{reason}", now, reason)


def found(folder: Path) -> list[BackupFiles]:
    """Return what lies in the folder, oldest first, with the database files that a person put there. Blocking."""
    sizes: dict[str, dict[str, int]] = {}
    made: dict[str, float] = {}
    for path in _of_backups(folder):
        # Another process may delete it meanwhile.
        with suppress(FileNotFoundError):
            there = path.stat()
            sizes.setdefault(path.stem, {})[path.suffix] = there.st_size
            made[path.stem] = there.st_mtime
    backups: list[BackupFiles] = []
    for name, held in sizes.items():
        taken, reason = _parsed(name) or (datetime.fromtimestamp(made[name], UTC), "")
        if reason or _FULL in held:
            backups.append(BackupFiles(folder, name, taken, reason, held.get(_FULL, 0), held.get(_UNDO, 0)))
    return sorted(backups, key=lambda one: (one.taken, one.id))


def own(folder: Path) -> list[BackupFiles]:
    """Return the backups that were made here, oldest first. Blocking."""
    return [one for one in found(folder) if one.reason]


def sweep(folder: Path) -> None:
    """Delete what a crash left half-written: before the next backup, which may need the room."""
    for path in folder.glob("*.part*"):
        files.discard(path)


def _of_backups(folder: Path) -> Iterator[Path]:
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.suffix in {_FULL, _UNDO}:
            yield path


def _parsed(name: str) -> tuple[datetime, str] | None:
    """Return the instant and the reason in a backup's id, None for the name of another file."""
    stamp, _, reason = name.rpartition("-")
    try:
        # Of a thousand names `strptime` would take longer than everything else.
        return (clock.parse(stamp), reason) if _STAMPED.fullmatch(stamp) else None
    except ValueError:
        return None
