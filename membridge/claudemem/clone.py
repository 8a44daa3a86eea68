"""A copy of the live database that shares its pages on the disk, on a file system that can: btrfs, XFS, bcachefs.

A read transaction is open meanwhile. While it lasts, a checkpoint moves nothing into the database that is newer, so the
file and the WAL, cloned one after the other, are one state: the newest that the WAL's clone has.
"""

import errno
import fcntl
import os
import sys
from contextlib import suppress
from pathlib import Path

import apsw

from membridge.aio.deadline import Deadline
from membridge.claudemem import open_files
from membridge.claudemem.connection import bound, open_live, resolve
from membridge.claudemem.sql import Connection
from membridge.claudemem.translate import translated
from membridge.system import files

#: Linux' request to let one file share the blocks of another one.
_FICLONE = 0x40049409
#: What a file system answers that cannot, or not between these two files.
_CANNOT = frozenset({errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EPERM})
_COMPANIONS = ("-wal", "-shm", "-journal")


def clone(live: Path, target: Path, *, deadline: Deadline) -> bool:
    """Make `target` a clone of the live database as it is; return False where the file system cannot.

    Errors: the database's, DiskFullError; `target` is then gone.
    """
    if sys.platform != "linux":
        return False
    real = resolve(live)
    made = False
    try:
        with open_live(live, deadline=deadline) as connection, translated(target):
            connection.run("BEGIN; SELECT 1 FROM sqlite_schema LIMIT 1")
            made = _share(real, target)
            if made:
                _copy_wal(Path(f"{real}-wal"), Path(f"{target}-wal"))
        if made:
            with translated(target):
                _settle(target, deadline)
                files.sync_path(target)
    except BaseException:
        made = False
        raise
    finally:
        for suffix in _COMPANIONS if made else ("", *_COMPANIONS):
            with suppress(OSError):
                Path(f"{target}{suffix}").unlink(missing_ok=True)
    return made


def _share(source: Path, target: Path) -> bool:
    """Let a new file share the blocks of the live database, through SQLite's own descriptor of it."""
    made = os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        for number in open_files.descriptors(source):
            try:
                fcntl.ioctl(made, _FICLONE, number)
            except OSError as error:
                if error.errno in _CANNOT:
                    return False
                raise
            return True
        return False
    finally:
        os.close(made)


def _copy_wal(source: Path, target: Path) -> None:
    """Copy the WAL as far as it goes: it has no locks, and SQLite ignores a last frame that is cut off."""
    with suppress(FileNotFoundError):
        files.copy(source, target)


def _settle(target: Path, deadline: Deadline) -> None:
    """Move what the WAL holds into the clone: a backup is one file."""
    connection = Connection(apsw.Connection(str(target), flags=apsw.SQLITE_OPEN_READWRITE))
    try:
        bound(connection, deadline)
        connection.run("PRAGMA journal_mode = DELETE")
    finally:
        connection.close()
