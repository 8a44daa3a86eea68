"""Backups: whole copies of the live database, kept before it is written to."""

from datetime import UTC, datetime
from pathlib import Path

from membridge.claudemem import database
from membridge.deadline import Deadline
from membridge.snapshot import files, retention
from membridge.snapshot.lane import Lane
from membridge.snapshot.steps import Steps
from schemas.snapshot import Backup

_STAMP = "%Y%m%dT%H%M%S.%fZ"


def take(lane: Lane, reason: str, *, deadline: Deadline) -> Path:
    """Copy the live database into the backups folder, then forget what retention no longer keeps. Blocking.

    Errors: DiskFullError, DatabaseBusyError; nothing is left behind then.
    """
    target = lane.backups / f"{datetime.now(UTC).strftime(_STAMP)}-{reason}.db"
    with files.translated(target):
        lane.backups.mkdir(parents=True, exist_ok=True, mode=0o700)
        _sweep(lane)
    part = target.with_suffix(".part")
    try:
        database.backup(lane.database, part, deadline=deadline)
        with files.translated(target):
            part.replace(target)
    finally:
        files.discard(part)
    prune(lane)
    return target


class BeforeWrite:
    """Takes one backup of the live database when called, which is right before something is written to it. Blocking."""

    def __init__(self, lane: Lane, reason: str, steps: Steps, deadline: Deadline) -> None:
        self._lane, self._reason, self._steps, self._deadline = lane, reason, steps, deadline
        self.path: Path | None = None

    def __call__(self) -> None:
        """Take the backup. Errors: as `take`."""
        with self._steps.step("backup"):
            self.path = take(self._lane, self._reason, deadline=self._deadline)


def listed(lane: Lane) -> list[Backup]:
    """Return the backups, newest first. Blocking."""
    found: list[Backup] = []
    for path in sorted(lane.backups.glob("*.db"), reverse=True):
        stamp, _, reason = path.stem.rpartition("-")
        found.append(
            Backup(path=str(path), size_bytes=path.stat().st_size, created_at=_taken(stamp).isoformat(), reason=reason)
        )
    return found


def prune(lane: Lane) -> None:
    """Delete the backups that the policy no longer keeps. Blocking."""
    now = datetime.now(UTC)
    kept = [
        retention.Kept(path.name, (now - _taken(path.stem.rpartition("-")[0])).total_seconds())
        for path in lane.backups.glob("*.db")
    ]
    for name in retention.expired(kept, lane.policy.backups):
        files.discard(lane.backups / name)


def _sweep(lane: Lane) -> None:
    """Delete what a crash left half-written: before the next backup, which may need the room."""
    for path in lane.backups.glob("*.part*"):
        files.discard(path)


def _taken(stamp: str) -> datetime:
    try:
        return datetime.strptime(stamp, _STAMP).replace(tzinfo=UTC)
    except ValueError:
        # A file that a person put here: of an age that retention never touches.
        return datetime.now(UTC)
