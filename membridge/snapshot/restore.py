"""Earlier states brought back: compared, as a file, or as the memory itself.

The memory is restored like a merge whose base is the head and whose theirs is the earlier state: what came since then
goes, what went comes back, and rows that are in no snapshot stay. Nothing is rewritten: the caller commits the result
as a new snapshot, and the other nodes take its deletions like any others.
"""

import secrets
from dataclasses import dataclass
from pathlib import Path

from membridge import blocking
from membridge.deadline import Deadline
from membridge.errors import NotFoundError
from membridge.merge import compare, install, snapshot
from membridge.merge.compare import Comparison
from membridge.merge.report import MergeReport
from membridge.snapshot import backups, files, push, states
from membridge.snapshot.lane import Lane
from membridge.snapshot.scratch import check_room, scratch
from membridge.snapshot.steps import Steps
from schemas.identity import Epoch
from schemas.snapshot import SnapshotRecord


@dataclass(frozen=True, slots=True)
class Restored:
    """What a restore did to the live database, and the backup that was taken before."""

    report: MergeReport
    backup: Path


async def diff(
    lane: Lane,
    older: SnapshotRecord | None,
    newer: SnapshotRecord | None,
    *,
    limit: int,
    steps: Steps,
    deadline: Deadline,
) -> Comparison:
    """Return what became of the memory between two states; None is no memory at all. Errors: as `states.build`."""
    if (older.sha256 if older else None) == (newer.sha256 if newer else None):
        return Comparison()
    async with scratch(lane) as folder:
        paths = [
            None if record is None else await states.build(lane, record, folder, steps=steps, deadline=deadline)
            for record in (older, newer)
        ]
        with steps.step("compare"):
            return await blocking.run(compare.compare, paths[0], paths[1], limit=limit, deadline=deadline)


async def extract(lane: Lane, record: SnapshotRecord, *, steps: Steps, deadline: Deadline) -> Path:
    """Make a database of `record` that claude-mem can use, and return it; it is deleted after a day.

    Errors: as `states.build`, and the database's.
    """
    kept = lane.folder / "extracted"
    target = kept / f"{record.seq}-{secrets.token_hex(4)}.db"
    await blocking.run(files.sweep, kept, "*.db")
    async with scratch(lane) as folder:
        state = await states.build(lane, record, folder, steps=steps, deadline=deadline)
        await blocking.run(check_room, folder, record)
        with steps.step("install"):
            source = lane.source(record.node, record.device_id)
            await blocking.run(install.install, state, target, source=source, deadline=deadline)
            await blocking.run(target.chmod, 0o600)
    return target


async def take_back(lane: Lane, record: SnapshotRecord, *, epoch: Epoch, steps: Steps, deadline: Deadline) -> Restored:
    """Write the state of `record` into the live database, after a backup; the caller commits it.

    Killed half-way and run again it goes on. Errors: as `states.build` and `push.current_head`, the database's.
    """
    with steps.step("head"):
        await push.current_head(lane, epoch, steps=steps, deadline=deadline)
    head = lane.mirror.path()
    if head is None:
        raise NotFoundError(f"this node has no mirror of {lane.name}", remedy="run `membridge pull`")
    async with scratch(lane) as folder:
        state = await states.build(lane, record, folder, steps=steps, deadline=deadline)
        with steps.step("backup"):
            backup = await blocking.run(backups.take, lane, "restore", deadline=deadline)
        with steps.step("merge"):
            report = await blocking.run(
                snapshot.merge_snapshot,
                lane.database,
                base=head,
                theirs=state,
                source=lane.source(record.node, record.device_id),
                journal=lane.journal,
                deadline=deadline,
            )
    return Restored(report, backup)
