"""An earlier state as a file: rebuilt from its chain, or a copy of the mirror when that is it."""

import errno
import os
import secrets
from contextlib import closing
from pathlib import Path

from membridge.aio import threads
from membridge.aio.deadline import Deadline
from membridge.claudemem.connection import MEMORY_SUFFIX
from membridge.commits import chain, heads, rebuild
from membridge.commits.progress import ProgressTracker
from membridge.commits.replica import Replica
from membridge.commits.temp_dir import check_room, temp_dir
from membridge.errors import CorruptObjectError, NotFoundError
from membridge.merge import install
from membridge.merge.memory_file import MemoryFile, OtherMemoryError
from membridge.merge.report import Source
from membridge.system import files
from schemas.snapshot import SnapshotRecord

#: The folder of files that people asked for.
EXTRACTED = "extracted"


async def build(
    replica: Replica, record: SnapshotRecord, folder: Path, *, progress: ProgressTracker, deadline: Deadline
) -> Path:
    """Return a memory file in `folder` that holds the state of `record`, compared with its sums.

    Errors: CorruptObjectError, ObjectMissingError when the chain has a hole, DiskFullError, the store's.
    """
    target, work = folder / f"{record.seq}{MEMORY_SUFFIX}", folder / f"{record.seq}.objects"
    await threads.run(check_room, folder, record)
    if await threads.run(_from_mirror, replica, record, target, deadline):
        return target
    records = await heads.lineage(replica, record, record.full_seq, deadline=deadline)
    try:
        plan = chain.plan(record, None, records)
    except chain.BrokenChainError as error:
        raise _broken(record, str(error)) from error
    if plan is None:
        raise _broken(record, "its records do not form a chain")
    await threads.run(files.fresh_folder, work)
    try:
        await rebuild.rebuild(replica, plan.steps, target, work, progress=progress, deadline=deadline)
    finally:
        await threads.run(files.remove, work)
    return target


async def extract(replica: Replica, record: SnapshotRecord, *, progress: ProgressTracker, deadline: Deadline) -> Path:
    """Make a database of `record` that claude-mem can use, and return it; it is deleted after a day.

    Errors: as `build`, and the database's.
    """
    kept = replica.folder / EXTRACTED
    target = kept / f"{record.seq}-{secrets.token_hex(4)}.db"
    await threads.run(files.sweep, kept, "*")
    async with temp_dir(replica) as folder:
        state = await build(replica, record, folder, progress=progress, deadline=deadline)
        await threads.run(check_room, folder, record)
        with progress.step("install"):
            source = Source(node=record.node, device_id=record.device_id)
            await threads.run(install.install, state, target, source=source, deadline=deadline)
            await threads.run(target.chmod, 0o600)
    return target


def part(replica: Replica, name: str, offset: int, length: int) -> tuple[bytes, int]:
    """Return bytes of an extracted file, and its size. Raises NotFoundError. Blocking."""
    path = replica.folder / EXTRACTED / name
    with files.translated(path):
        try:
            # The name is one of ours, without folders; a link that another program put there is not followed.
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        except OSError as error:
            if error.errno not in {errno.ENOENT, errno.ELOOP}:
                raise
            raise NotFoundError(
                f"there is no file {name} on this machine: it is kept for a day",
                remedy="write the state to a file again",
            ) from error
        with os.fdopen(descriptor, "rb") as file:
            file.seek(offset)
            return file.read(length), os.fstat(file.fileno()).st_size


def _from_mirror(replica: Replica, record: SnapshotRecord, target: Path, deadline: Deadline) -> bool:
    position, mirror = replica.mirror.position(), replica.mirror.path()
    if position is None or mirror is None or position.sha256 != record.sha256:
        return False
    with closing(MemoryFile(mirror, deadline=deadline)) as memory:
        memory.copy_to(target, deadline=deadline)
    try:
        with closing(MemoryFile(target, deadline=deadline)) as memory:
            memory.check()
            memory.check_is(record.sha256)
    except OtherMemoryError:
        files.remove(target)
        return False
    return True


def _broken(record: SnapshotRecord, why: str) -> CorruptObjectError:
    return CorruptObjectError(f"snapshot {record.seq} cannot be restored: {why}")
