"""Temporary folders beside the mirror, in which old states are rebuilt."""

import secrets
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from membridge.aio import threads
from membridge.commits.replica import Replica
from membridge.errors import DiskFullError
from membridge.system import files
from schemas.snapshot import SnapshotRecord


@asynccontextmanager
async def temp_dir(replica: Replica) -> AsyncGenerator[Path]:
    """Yield an empty folder and remove it after the body. Folders of killed processes are removed after a day."""
    folder = replica.folder / f"scratch-{secrets.token_hex(4)}"
    await threads.run(files.sweep, replica.folder, "scratch-*")
    await threads.run(files.fresh_folder, folder)
    try:
        yield folder
    finally:
        await threads.run(files.remove, folder)


def check_room(folder: Path, record: SnapshotRecord) -> None:
    """Raise DiskFullError when `folder` has no room for the state of `record` and its object. Blocking."""
    needed = record.size_bytes + (record.object.size_bytes if record.object else 0)
    free = files.free_bytes(folder)
    if free < needed:
        raise DiskFullError(
            f"no room to restore snapshot {record.seq} in {folder}: {needed} bytes needed, {free} free",
            remedy="free some space and try again; nothing was changed",
        )
