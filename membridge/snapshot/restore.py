"""Earlier states brought back as the memory itself.

A restored memory is the earlier state and nothing else, except rows that no snapshot has: these stay. What the live
database alone lost comes back too. Nothing is rewritten: the caller commits the result as a new snapshot, and the other
nodes take its deletions like any others.
"""

from dataclasses import dataclass
from pathlib import Path

import msgspec

from membridge.aio import threads
from membridge.aio.deadline import Deadline
from membridge.claudemem import database
from membridge.commits import materialize
from membridge.commits.progress import ProgressTracker
from membridge.commits.temp_dir import temp_dir
from membridge.errors import NotFoundError
from membridge.merge import collect, compare, snapshot
from membridge.merge.compare import Comparison
from membridge.merge.conflicts import Journal
from membridge.merge.report import MergeReport
from membridge.snapshot import backups, push
from membridge.snapshot.lane import Lane
from membridge.system import files
from schemas.commits import RowChange
from schemas.identity import Epoch
from schemas.snapshot import SnapshotRecord


@dataclass(frozen=True, slots=True)
class Preview:
    """What a restore would change in the live database; `commits` when that is not the newest snapshot's memory."""

    changes: Comparison
    commits: bool


@dataclass(frozen=True, slots=True)
class Restored:
    """What a restore did to the live database, and the backup that was taken before, None where nothing changed."""

    report: MergeReport
    backup: Path | None
    changes: Comparison


async def preview(
    lane: Lane,
    record: SnapshotRecord,
    head: SnapshotRecord,
    *,
    limit: int,
    progress: ProgressTracker,
    deadline: Deadline,
) -> Preview:
    """Restore `record` into a copy of the live database, and return what that changed; nothing else is written.

    Errors: as `materialize.build`, the database's.
    """
    async with temp_dir(lane) as folder:
        state = await materialize.build(lane, record, folder, progress=progress, deadline=deadline)
        newest = state
        if head.seq != record.seq:
            newest = await materialize.build(lane, head, folder, progress=progress, deadline=deadline)
        before, after = folder / "before.db", folder / "after.db"
        with progress.step("copy"):
            await threads.run(database.backup, lane.database, before, deadline=deadline)
            await threads.run(files.copy, before, after)
        with progress.step("merge"):
            rehearsal = _Rehearsal(lane, record, head, folder)
            await threads.run(rehearsal.run, after, state=state, newest=newest, deadline=deadline)
        with progress.step("compare"):
            changes = await threads.run(compare.compare, before, after, limit=limit, deadline=deadline)
            await threads.run(_add_kept, changes, state, after, limit=limit, deadline=deadline)
            commits = await threads.run(collect.differs, after, newest, deadline=deadline)
    return Preview(changes, commits)


async def take_back(
    lane: Lane, record: SnapshotRecord, *, epoch: Epoch, limit: int = 0, progress: ProgressTracker, deadline: Deadline
) -> Restored:
    """Write the state of `record` into the live database, after a backup; the caller commits it.

    Killed half-way and run again it goes on. Errors: as `materialize.build` and `push.current_head`, the database's.
    """
    with progress.step("head"):
        await push.current_head(lane, epoch, progress=progress, deadline=deadline)
    newest = lane.mirror.path()
    if newest is None:
        raise NotFoundError(f"this node has no mirror of {lane.name} to compare with", remedy="run `membridge pull`")
    async with temp_dir(lane) as folder:
        state = await materialize.build(lane, record, folder, progress=progress, deadline=deadline)
        save = backups.BeforeWrite(lane, "restore", progress, deadline)
        with progress.step("merge"):
            report = await threads.run(
                snapshot.restore_snapshot,
                lane.database,
                newest=newest,
                target=state,
                source=lane.source(record.node, record.device_id),
                journal=lane.journal,
                deadline=deadline,
                save=save,
            )
        with progress.step("compare"):
            changes = await threads.run(save.changes, limit=limit, deadline=deadline)
            await threads.run(_add_kept, changes, state, lane.database, limit=limit, is_live=True, deadline=deadline)
    return Restored(report, save.path, changes)


class _Rehearsal:
    """A restore of `record` carried out on a copy, with a journal of its own in `folder`."""

    def __init__(self, lane: Lane, record: SnapshotRecord, head: SnapshotRecord, folder: Path) -> None:
        self._lane, self._record, self._head, self._folder = lane, record, head, folder

    def run(self, copy: Path, *, state: Path, newest: Path, deadline: Deadline) -> None:
        """Do to `copy` what `take_back` does to the live database. Blocking."""
        lane, record, head = self._lane, self._record, self._head
        position, journal = lane.mirror.position(), Journal(self._folder / "journal.db")
        try:
            if position is None or position.sha256 != head.sha256:
                snapshot.merge_snapshot(
                    copy,
                    base=lane.mirror.path(),
                    theirs=newest,
                    source=lane.source(head.node, head.device_id),
                    journal=journal,
                    deadline=deadline,
                )
            snapshot.restore_snapshot(
                copy,
                newest=newest,
                target=state,
                source=lane.source(record.node, record.device_id),
                journal=journal,
                deadline=deadline,
            )
        finally:
            journal.close()


def _add_kept(
    changes: Comparison, state: Path, after: Path, *, limit: int, is_live: bool = False, deadline: Deadline
) -> None:
    """Add to what a restore of `state` changed which rows of `after` it kept."""
    beyond = compare.compare(state, after, limit=limit, is_live=is_live, deadline=deadline)
    for table, counts in beyond.counts.items():
        if kept := counts.get(RowChange.CAME):
            changes.counts.setdefault(table, {})[RowChange.KEPT] = kept
    kept_rows = [row for row in beyond.rows if row.change is RowChange.CAME]
    for row in kept_rows[: limit - len(changes.rows)]:
        changes.rows.append(msgspec.structs.replace(row, change=RowChange.KEPT))
