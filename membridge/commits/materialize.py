"""An earlier state as a file: rebuilt from its chain, or the mirror itself when it is that state."""

import os
import secrets
from pathlib import Path

from membridge.aio import threads
from membridge.aio.deadline import Deadline
from membridge.commits import chain, heads, rebuild
from membridge.commits.progress import ProgressTracker
from membridge.commits.replica import Replica
from membridge.commits.temp_dir import check_room, temp_dir
from membridge.errors import CorruptObjectError
from membridge.merge import install
from membridge.merge.report import Source
from membridge.system import files
from schemas.snapshot import SnapshotRecord


async def build(
    replica: Replica, record: SnapshotRecord, folder: Path, *, progress: ProgressTracker, deadline: Deadline
) -> Path:
    """Return a file in `folder`, to be read only, that is the database of `record`, compared with its sha256.

    Errors: CorruptObjectError, ObjectMissingError when the chain has a hole, DiskFullError, the store's.
    """
    target, work = folder / f"{record.seq}.db", folder / f"{record.seq}.objects"
    if await threads.run(_from_mirror, replica, record, target):
        return target
    await threads.run(check_room, folder, record)
    seqs = range(record.full_seq, record.seq)
    records = await heads.fetch_records(replica, seqs, deadline=deadline)
    try:
        plan = chain.plan(record, None, records | {record.seq: record})
    except chain.BrokenChainError as error:
        raise _broken(record, str(error)) from error
    if plan is None:
        raise _broken(record, "its records do not form a chain")
    await threads.run(files.fresh_folder, work)
    try:
        await rebuild.rebuild(replica, plan.commits, target, work, progress=progress, deadline=deadline)
    finally:
        await threads.run(files.remove, work)
    if await threads.run(files.sha256_of, target) != record.sha256:
        raise _broken(record, "the rebuilt database is not the committed one")
    return target


async def extract(replica: Replica, record: SnapshotRecord, *, progress: ProgressTracker, deadline: Deadline) -> Path:
    """Make a database of `record` that claude-mem can use, and return it; it is deleted after a day.

    Errors: as `build`, and the database's.
    """
    kept = replica.folder / "extracted"
    target = kept / f"{record.seq}-{secrets.token_hex(4)}.db"
    await threads.run(files.sweep, kept, "*.db")
    async with temp_dir(replica) as folder:
        state = await build(replica, record, folder, progress=progress, deadline=deadline)
        await threads.run(check_room, folder, record)
        with progress.step("install"):
            source = Source(node=record.node, device_id=record.device_id)
            await threads.run(install.install, state, target, source=source, deadline=deadline)
            await threads.run(target.chmod, 0o600)
    return target


def _from_mirror(replica: Replica, record: SnapshotRecord, target: Path) -> bool:
    mirror = replica.mirror.path()
    if mirror is None or mirror.stem != record.sha256[: len(mirror.stem)]:
        return False
    try:
        # A hard link keeps the file when a pull advances the mirror.
        os.link(mirror, target)
    except OSError:
        return False
    if files.sha256_of(target) == record.sha256:
        return True
    # The target is a hard link to the mirror: a write to it would change the mirror.
    with files.translated(target):
        target.unlink()
    return False


def _broken(record: SnapshotRecord, why: str) -> CorruptObjectError:
    return CorruptObjectError(f"snapshot {record.seq} cannot be restored: {why}")
