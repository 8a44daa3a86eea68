"""Backups: what the live database was before each write to it.

Each write keeps an undo record of the rows that it touches. A full copy of the database is made rarely: the first time,
when the records since weigh a share of the database, when the newest one is old, and before the database is replaced as
a whole. A backup is made right before a write, never twice of one state: one that was begun for a write that failed
serves the next write.
"""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from membridge.aio.deadline import Deadline
from membridge.claudemem import clone, database
from membridge.commits.progress import ProgressTracker
from membridge.commits.retention import DAY
from membridge.errors import DatabaseCorruptError, DiskFullError, FileAccessError
from membridge.merge import undo_record
from membridge.merge.compare import Comparison
from membridge.merge.former import Former
from membridge.merge.undo_record import Facts, Header
from membridge.snapshot import backup_files, backup_retention, undo_chain
from membridge.snapshot.backup_files import BackupFiles
from membridge.snapshot.backup_retention import Kept
from membridge.snapshot.lane import Lane
from membridge.system import clock, files
from membridge.system.logging import get_logger
from schemas.snapshot import Backup

log = get_logger("membridge.snapshot")

#: Undo records since the newest full copy, in percent of the database, before there is another one.
FULL_PERCENT = 25
#: Full copies within the age that backups reach: with two there are at most three at any time.
FULL_COPIES = 2
#: The reason of the backup that is made before another one is put back.
PUT_BACK = "backup"


class BeforeWrite:
    """Makes one backup of the live database for an operation that is about to write to it. Blocking.

    Called before the first write; then it gets the rows of each transaction. `path` is the backup, None as long as
    nothing was to be written. Backups whose id is in `spare` stay, whatever their age and number.
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
        self._backup: BackupFiles | None = None
        self.path: Path | None = None

    def __call__(self) -> None:
        """Begin the backup, with a full copy if one is due. Errors: as `take`."""
        lane, deadline = self._lane, self._deadline
        known, facts = _opened(lane, deadline)
        backup, before = _unused(known, self._reason) or (backup_files.fresh(lane.backups, self._reason, known), known)
        header = _header_after(lane, before, facts, deadline)
        if not backup.full and _is_due(lane, before, header):
            with self._progress.step("backup"):
                backup, header = _copied(lane, backup, header, before, deadline)
        undo_record.begin(backup.undo_path, header)
        if not header.previous:
            _forget_unreachable(before)
        self._backup = backup
        self.path = backup.path
        prune(lane, spare=self._spare | {backup.id})

    def record(self, formers: Sequence[Former]) -> None:
        """Force the former content of rows to the disk. Errors: DiskFullError, FileAccessError."""
        if self._backup is None:
            raise AssertionError("called before the backup was begun")
        undo_record.append(self._backup.undo_path, formers)

    def changes(self, *, limit: int, deadline: Deadline) -> Comparison:
        """Return what the operation changed in the live database so far; `limit` rows are named."""
        if self._backup is None:
            return Comparison()
        from membridge.merge import put_back  # noqa: PLC0415 - rarely needed: a node keeps what it loads

        rows = undo_chain.recorded(self._backup)
        return put_back.changes(self._lane.database, rows, limit=limit, deadline=deadline).turned()


def take(lane: Lane, reason: str, *, spare: AbstractSet[str] = frozenset(), deadline: Deadline) -> Path:
    """Copy the live database into the backups folder, then forget what retention no longer keeps. Blocking.

    No chain of undo records goes on from such a backup: the caller replaces the database as a whole. Backups whose id
    is in `spare` stay. Returns the newest backup where that is the same state, byte for byte. Errors: the database's,
    DiskFullError; nothing is left behind then.
    """
    known, facts = _opened(lane, deadline)
    backup = backup_files.fresh(lane.backups, reason, known)
    backup, header = _copied(lane, backup, _header_after(lane, known, facts, deadline), known, deadline)
    undo_record.begin(backup.undo_path, Header(header.facts, header.previous, header.last, closed=True))
    prune(lane, spare=spare | {backup.id})
    return backup.full_path


def listed(lane: Lane) -> list[Backup]:
    """Return the backups, newest first, and database files that a person put among them. Blocking."""
    backups: list[Backup] = []
    for one in reversed(backup_files.found(lane.backups)):
        rows = undo_chain.rows_of(one)
        if one.full or rows:
            backup = Backup(
                id=one.id,
                path=str(one.path),
                size_bytes=one.full + one.undo,
                created_at=clock.stamp(one.taken),
                reason=one.reason,
                full_copy=bool(one.full),
                rows=rows,
            )
            backups.append(backup)
    return backups


def prune(lane: Lane, *, spare: AbstractSet[str] = frozenset()) -> None:
    """Delete the backups that the policy no longer keeps. Blocking.

    Left alone are backups whose id is in `spare`, and what a person put here. What a deleted one undoes goes into the
    record of the next older one that stays. Errors: as `undo_chain.join`.
    """
    folder, policy = lane.backups, lane.policy.backups
    own, now = backup_files.own(folder), clock.now()
    free = files.free_bytes(folder)
    kept = [
        Kept(one.id, (now - one.taken).total_seconds(), one.full, one.undo, f"{one.taken.date()} {one.reason}")
        for one in own
    ]
    if backup_retention.is_within(kept, policy, free_bytes=free):
        return
    for place, (older, newer) in enumerate(pairwise(own)):
        kept[place] = replace(kept[place], leads_on=undo_chain.leads_on(older, newer))
    plan = backup_retention.plan(kept, policy, free_bytes=free)
    leading = {one.name for one in kept if one.leads_on} - plan.records
    stays: BackupFiles | None = None
    going: list[BackupFiles] = []
    for one in own:
        if one.id in plan.backups - spare:
            going.append(one)
            continue
        _forget(going, stays, leading)
        stays, going = one, []
        if one.id in plan.full_copies - spare:
            files.discard(one.full_path)
        if one.id in plan.records - spare:
            files.discard(one.undo_path)


def _forget(going: Sequence[BackupFiles], onto: BackupFiles | None, leading: AbstractSet[str]) -> None:
    """Delete backups that follow each other; what the records of those that follow `onto` undo goes into its record."""
    chain: list[BackupFiles] = []
    leads = onto is not None and onto.id in leading
    for one in going:
        if not leads:
            break
        chain.append(one)
        leads = one.id in leading
    try:
        if onto is not None and chain:
            undo_chain.join(onto, chain)
    except DatabaseCorruptError:
        # What is older cannot be restored over a damaged record anyway.
        pass
    except (DiskFullError, FileAccessError) as error:
        log.warning("old backups could not be deleted", backups=len(going), error=error.message)
        return
    for one in going:
        files.discard(one.full_path)
        files.discard(one.undo_path)


def _forget_unreachable(before: Sequence[BackupFiles]) -> None:
    """Delete the newest backups, up to one with a full copy: the database that they could be restored from is gone."""
    for one in reversed(before):
        if one.full:
            return
        files.discard(one.undo_path)


def _opened(lane: Lane, deadline: Deadline) -> tuple[list[BackupFiles], Facts]:
    """Make the folder ready for another backup; return those made so far, oldest first, and the database's facts."""
    folder = lane.backups
    with files.translated(folder):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    backup_files.sweep(folder)
    facts = undo_chain.facts_of(lane.database, deadline=deadline)
    known = backup_files.own(folder)
    if known and undo_chain.settle(lane.database, known[-1], facts, deadline=deadline):
        known = backup_files.own(folder)
    return known, facts


def _unused(known: Sequence[BackupFiles], reason: str) -> tuple[BackupFiles, Sequence[BackupFiles]] | None:
    """Return the newest backup if the write that it was made for never happened, and those before it."""
    if not known or not _serves(known[-1], reason):
        return None
    header = undo_chain.header_of(known[-1])
    if header is None or header.closed or undo_chain.rows_of(known[-1]):
        return None
    return known[-1], known[:-1]


def _serves(backup: BackupFiles, reason: str) -> bool:
    return (backup.reason == PUT_BACK) == (reason == PUT_BACK)


def _header_after(lane: Lane, before: Sequence[BackupFiles], facts: Facts, deadline: Deadline) -> Header:
    newest = before[-1] if before else None
    goes_on = newest is not None and undo_chain.goes_on_from(lane.database, newest, facts, deadline=deadline)
    return Header(facts, previous=newest.id if newest is not None and goes_on else "")


def _is_due(lane: Lane, before: Sequence[BackupFiles], header: Header) -> bool:
    """Whether this backup needs a full copy: none is there, or the records do not lead to it, or from too far."""
    copies = [place for place, one in enumerate(before) if one.full]
    if not copies or not header.previous:
        return True
    age = (clock.now() - before[copies[-1]].taken).total_seconds()
    weight = sum(one.undo for one in before[copies[-1] :])
    with files.translated(lane.database):
        size = lane.database.stat().st_size
    return age * FULL_COPIES > lane.policy.backups.max_days * DAY or weight * 100 > size * FULL_PERCENT


def _copied(
    lane: Lane, backup: BackupFiles, header: Header, before: Sequence[BackupFiles], deadline: Deadline
) -> tuple[BackupFiles, Header]:
    """Give a backup its full copy; return it, or the newest one where that is a copy of the same state."""
    part = backup.full_path.with_suffix(".part")
    try:
        if not clone.clone(lane.database, part, deadline=deadline):
            database.backup(lane.database, part, deadline=deadline)
        with files.translated(part):
            for known in before[-1:]:
                if _serves(known, backup.reason) and not undo_chain.rows_of(known) and _is_same(known.full_path, part):
                    there = undo_chain.header_of(known)
                    return known, Header(header.facts, previous=there.previous if there is not None else "")
            files.put_in_place(part, backup.full_path)
            return replace(backup, full=backup.full_path.stat().st_size), header
    finally:
        files.discard(part)


def _is_same(known: Path, copy: Path) -> bool:
    """Whether two files hold the same bytes. Two copies of one state do; page by page, in the same places."""
    if not known.exists() or known.stat().st_size != copy.stat().st_size:
        return False
    with known.open("rb") as ours, copy.open("rb") as theirs:
        while block := ours.read(files.BLOCK):
            if block != theirs.read(files.BLOCK):
                return False
    return True
