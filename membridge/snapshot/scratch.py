"""A folder for a while: where old states are rebuilt, beside the mirror and never in it."""

import secrets
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from membridge import blocking
from membridge.errors import DiskFullError
from membridge.snapshot import files
from membridge.snapshot.lane import Lane
from schemas.snapshot import SnapshotRecord


@asynccontextmanager
async def scratch(lane: Lane) -> AsyncGenerator[Path]:
    """Give an empty folder that is gone after the body. What a killed process left is removed after a day."""
    folder = lane.folder / f"scratch-{secrets.token_hex(4)}"
    await blocking.run(files.sweep, lane.folder, "scratch-*")
    await blocking.run(files.fresh_folder, folder)
    try:
        yield folder
    finally:
        await blocking.run(files.remove, folder)


def check_room(folder: Path, record: SnapshotRecord) -> None:
    """Raise DiskFullError when `folder` has no room for the database of `record` and its object. Blocking."""
    needed = record.page_size * record.page_count + (record.object.size_bytes if record.object else 0)
    free = files.free_bytes(folder)
    if free < needed:
        raise DiskFullError(
            f"no room to restore seq {record.seq} in {folder}: {needed} bytes needed, {free} free",
            remedy="free some space and try again; nothing was changed",
        )
