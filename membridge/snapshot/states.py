"""An earlier state as a file: rebuilt from its chain, or the mirror itself when it is that state."""

import os
from pathlib import Path

from membridge import blocking
from membridge.deadline import Deadline
from membridge.errors import CorruptObjectError
from membridge.snapshot import chain, files, heads, rebuild
from membridge.snapshot.lane import Lane
from membridge.snapshot.scratch import check_room
from membridge.snapshot.steps import Steps
from schemas.snapshot import SnapshotRecord


async def build(lane: Lane, record: SnapshotRecord, folder: Path, *, steps: Steps, deadline: Deadline) -> Path:
    """Return a file in `folder`, to be read only, that is the database of `record`, compared with its sha256.

    Errors: CorruptObjectError, ObjectMissingError when the chain has a hole, DiskFullError, the store's.
    """
    target, work = folder / f"{record.seq}.db", folder / f"{record.seq}.objects"
    if await blocking.run(_from_mirror, lane, record, target):
        return target
    await blocking.run(check_room, folder, record)
    seqs = range(record.full_seq, record.seq)
    records = await heads.fetch_records(lane, seqs, deadline=deadline)
    try:
        way = chain.plan(record, None, records | {record.seq: record})
    except chain.BrokenChainError as error:
        raise _broken(record, str(error)) from error
    if way is None:
        raise _broken(record, "its records are no chain")
    await blocking.run(files.fresh_folder, work)
    try:
        await rebuild.rebuild(lane, way.commits, target, work, steps=steps, deadline=deadline)
    finally:
        await blocking.run(files.remove, work)
    if await blocking.run(files.sha256_of, target) != record.sha256:
        raise _broken(record, "the database that it gives is not the one that was committed")
    return target


def _from_mirror(lane: Lane, record: SnapshotRecord, target: Path) -> bool:
    mirror = lane.mirror.path()
    if mirror is None or mirror.stem != record.sha256[: len(mirror.stem)]:
        return False
    try:
        # A second name, so that a pull that advances the mirror does not take the file away.
        os.link(mirror, target)
    except OSError:
        return False
    if files.sha256_of(target) == record.sha256:
        return True
    # What is written there next must not be written into the mirror.
    with files.translated(target):
        target.unlink()
    return False


def _broken(record: SnapshotRecord, why: str) -> CorruptObjectError:
    return CorruptObjectError(f"seq {record.seq} cannot be restored: {why}", remedy="run `membridge verify`")
