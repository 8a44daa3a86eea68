"""Temporary folders beside the mirror, in which old states are rebuilt.

Each one is locked by who uses it: the system lets the lock go with the process, so what a killed one left is told
from what is in use, and removed by the next that opens the project.
"""

import fcntl
import os
import secrets
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from membridge.aio import threads
from membridge.commits.replica import Replica
from membridge.errors import DiskFullError
from membridge.system import files
from schemas.snapshot import SnapshotRecord

_NAMES = "scratch-*"


@asynccontextmanager
async def temp_dir(replica: Replica) -> AsyncGenerator[Path]:
    """Yield an empty folder and remove it after the body."""
    folder = replica.folder / f"scratch-{secrets.token_hex(4)}"
    await threads.run(sweep, replica.folder)
    held = await threads.run(_made, folder)
    try:
        yield folder
    finally:
        await threads.run(_removed, folder, held)


def sweep(project: Path) -> None:
    """Remove the temporary folders of killed processes from the state folder of a project. Blocking."""
    for folder in project.glob(_NAMES):
        with suppress(OSError):
            _removed(folder, _locked(folder))


def check_room(folder: Path, record: SnapshotRecord) -> None:
    """Raise DiskFullError when `folder` has no room for the state of `record` and its object. Blocking."""
    needed = record.size_bytes + (record.object.size_bytes if record.object else 0)
    free = files.free_bytes(folder)
    if free < needed:
        raise DiskFullError(
            f"no room to restore snapshot {record.seq} in {folder}: {needed} bytes needed, {free} free",
            remedy="free some space and try again; nothing was changed",
        )


def _made(folder: Path) -> int:
    """Make a folder and lock it; once more, when a sweep saw it before it was locked."""
    with files.translated(folder):
        while True:
            files.fresh_folder(folder)
            try:
                held = _locked(folder)
            except (BlockingIOError, FileNotFoundError):
                continue
            if folder.exists():
                return held
            os.close(held)


def _locked(folder: Path) -> int:
    """Lock a folder and return what holds it. Raises BlockingIOError when another does."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _removed(folder: Path, held: int) -> None:
    try:
        files.remove(folder)
    finally:
        os.close(held)
