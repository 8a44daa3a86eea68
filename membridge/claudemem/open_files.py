"""Use a connection's own descriptors of a live database's files for what SQLite has no call for.

To open such a file once more and close it would drop every POSIX lock that this process holds on it. So what is needed
(the file forced to the disk, the header of the WAL's index, who holds a lock) goes through the descriptors that SQLite
has open. The caller keeps a connection to the database open meanwhile.
"""

import fcntl
import os
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

from membridge.system import files

#: Bytes of the database file by which SQLite locks it: pending, reserved and those of the readers.
_DATABASE_LOCKS = (0x4000_0000, 512)
#: Bytes of the WAL's index: the lock of the connection that writes, and of one that recovers the index.
_WAL_LOCKS = ((120, 1), (122, 1))
#: `struct flock`: type, whence, start, length, pid; macOS has another order.
_FLOCK = struct.Struct("@qqihh") if sys.platform == "darwin" else struct.Struct("@hhqqi4x")


def descriptors(path: Path) -> Iterator[int]:
    """Yield this process's descriptors of the file at `path`, and no other file's."""
    try:
        wanted = path.stat()
        numbers = [int(entry.name) for entry in Path("/dev/fd").iterdir()]
    except (OSError, ValueError):
        return
    for number in numbers:
        if is_file(number, wanted):
            yield number


def read(path: Path, size: int, offset: int) -> bytes | None:
    """Return bytes of a file that a connection has open; None if none has it open."""
    try:
        wanted = path.stat()
    except OSError:
        return None
    for number in descriptors(path):
        try:
            found = os.pread(number, size, offset)
        except OSError:
            continue
        # Another thread may have closed it meanwhile, and the number may be another file's by now.
        if is_file(number, wanted):
            return found
    return None


def force(path: Path) -> None:
    """Force a file that a connection has open to the disk. Raises OSError when the disk refuses."""
    for number in descriptors(path):
        files.sync(number)
        return


def lock_holder(path: Path) -> int | None:
    """Return the pid of another process whose lock on the database is in the way; None if that is unknown."""
    index = Path(f"{path}-shm")
    asked = [(index, span, fcntl.F_WRLCK) for span in _WAL_LOCKS] if index.exists() else []
    asked.append((path, _DATABASE_LOCKS, fcntl.F_RDLCK))
    if not index.exists():
        # Without a WAL readers are in a writer's way; with one each connection has the readers' lock.
        asked.append((path, _DATABASE_LOCKS, fcntl.F_WRLCK))
    for file, (start, length), kind in asked:
        holder = _holder(file, start, length, kind)
        if holder is not None:
            return holder
    return None


def _holder(file: Path, start: int, length: int, kind: int) -> int | None:
    for number in descriptors(file):
        try:
            answer = fcntl.fcntl(number, fcntl.F_GETLK, _flock(kind, start, length))
        except (OSError, ValueError):
            continue
        found, pid = _held(answer)
        # A process of another container has no pid here.
        return pid if found != fcntl.F_UNLCK and pid > 0 else None
    return None


def _flock(kind: int, start: int, length: int) -> bytes:
    if sys.platform == "darwin":
        return _FLOCK.pack(start, length, 0, kind, os.SEEK_SET)
    return _FLOCK.pack(kind, os.SEEK_SET, start, length, 0)


def _held(answer: bytes) -> tuple[int, int]:
    fields: tuple[int, ...] = _FLOCK.unpack(answer)
    return (fields[3], fields[2]) if sys.platform == "darwin" else (fields[0], fields[4])


def is_file(number: int, wanted: os.stat_result) -> bool:
    """Whether a descriptor is of the file that `wanted` was read of."""
    try:
        found = os.fstat(number)
    except OSError:
        return False
    return (found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino)
