"""Backups: whole copies of the live database, kept before it is written to.

A backup is taken right before a write, never of a state that the newest backup has already: an operation that is tried
again and again fills no disk and drives no older backup out. Its id is its file's name, an instant and a reason.
"""

from collections.abc import Set as AbstractSet
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from membridge.aio.deadline import Deadline
from membridge.claudemem import database
from membridge.commits.progress import ProgressTracker
from membridge.snapshot import backup_retention
from membridge.snapshot.lane import Lane
from membridge.system import clock, files
from schemas.snapshot import Backup

_STAMP = "%Y%m%dT%H%M%S.%fZ"


class BeforeWrite:
    """Takes one backup of the live database when called, which is right before something is written to it. Blocking.

    Backups whose file's name is in `spare` stay, whatever their age and number.
    """

    def __init__(
        self,
        lane: Lane,
        reason: str,
        progress: ProgressTracker,
        deadline: Deadline,
        *,
        spare: AbstractSet[str] = frozenset(),
    ) -> None:
        self._lane, self._reason, self._progress, self._deadline = lane, reason, progress, deadline
        self._spare = spare
        self.path: Path | None = None

    def __call__(self) -> None:
        """Take the backup. Errors: as `take`."""
        with self._progress.step("backup"):
            self.path = take(self._lane, self._reason, spare=self._spare, deadline=self._deadline)


def take(lane: Lane, reason: str, *, spare: AbstractSet[str] = frozenset(), deadline: Deadline) -> Path:
    """Copy the live database into the backups folder, then forget what retention no longer keeps. Blocking.

    Files of a name in `spare` stay: the caller still needs them. Returns the newest backup where that is the same
    state, byte for byte. Errors: DiskFullError, DatabaseBusyError; nothing is left behind then.
    """
    target = lane.backups / f"{clock.now().strftime(_STAMP)}-{reason}.db"
    with files.translated(target):
        lane.backups.mkdir(parents=True, exist_ok=True, mode=0o700)
        sweep(lane)
    newest = [path for path, _ in _own(lane)[-1:]]
    part = target.with_suffix(".part")
    try:
        database.backup(lane.database, part, deadline=deadline)
        with files.translated(target):
            for known in newest:
                if _is_same(known, part):
                    return known
            files.put_in_place(part, target)
    finally:
        files.discard(part)
    prune(lane, spare=spare)
    return target


def listed(lane: Lane) -> list[Backup]:
    """Return the backups, newest first, and database files that a person put among them. Blocking."""
    found: list[tuple[datetime, Backup]] = []
    for path in lane.backups.glob("*.db"):
        # Another process may delete it meanwhile.
        with suppress(FileNotFoundError):
            there = path.stat()
            name = _name_of(path)
            taken, reason = name or (datetime.fromtimestamp(there.st_mtime, UTC), "")
            backup = Backup(
                id=path.stem, path=str(path), size_bytes=there.st_size, created_at=clock.stamp(taken), reason=reason
            )
            found.append((taken, backup))
    return [backup for _, backup in sorted(found, key=lambda one: (one[0], one[1].id), reverse=True)]


def prune(lane: Lane, *, spare: AbstractSet[str] = frozenset()) -> None:
    """Delete the backups that the policy no longer keeps. Blocking.

    Left alone are files whose name is in `spare`, and what a person put here.
    """
    now = clock.now()
    kept: list[backup_retention.Kept] = []
    for path, (taken, reason) in _own(lane):
        group = f"{taken.date().isoformat()} {reason}"
        kept.append(backup_retention.Kept(path.name, (now - taken).total_seconds(), path.stat().st_size, group))
    for name in backup_retention.expired(kept, lane.policy.backups, free_bytes=files.free_bytes(lane.backups)):
        if name not in spare:
            files.discard(lane.backups / name)


def sweep(lane: Lane) -> None:
    """Delete what a crash left half-written: before the next backup, which may need the room."""
    for path in lane.backups.glob("*.part*"):
        files.discard(path)


def _own(lane: Lane) -> list[tuple[Path, tuple[datetime, str]]]:
    """Return the backups that were taken here, oldest first, each with its instant and reason."""
    return sorted((path, name) for path in lane.backups.glob("*.db") if (name := _name_of(path)) is not None)


def _is_same(known: Path, copy: Path) -> bool:
    """Whether two files hold the same bytes. Two copies of one state do; page by page, in the same places."""
    if known.stat().st_size != copy.stat().st_size:
        return False
    with known.open("rb") as ours, copy.open("rb") as theirs:
        while block := ours.read(files.BLOCK):
            if block != theirs.read(files.BLOCK):
                return False
    return True


def _name_of(path: Path) -> tuple[datetime, str] | None:
    """Return the instant and the reason in a backup's name, None for a file that a person put here."""
    stamp, _, reason = path.stem.rpartition("-")
    try:
        return datetime.strptime(stamp, _STAMP).replace(tzinfo=UTC), reason
    except ValueError:
        return None
