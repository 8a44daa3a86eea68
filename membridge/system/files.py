"""What the operating system says about a file, as this project's errors: the one table.

A full disk, a failing one, a missing folder or a missing right is a sentence with the file's name and a remedy, in
every command and in the daemon's log; never a traceback.
"""

import errno
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from membridge.errors import DiskFullError, FileAccessError, MembridgeError

#: What errno says about room, and about a disk that fails.
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
FAILING = frozenset(
    number for name in ("EIO", "ENXIO", "ENODEV", "EUCLEAN", "EREMOTEIO") if (number := getattr(errno, name, None))
)


@contextmanager
def translated(path: Path) -> Generator[None]:
    """Raise DiskFullError or FileAccessError, naming `path`, for what the operating system says in the body."""
    try:
        yield
    except OSError as error:
        raise meaning(error, path) from error


def meaning(
    error: OSError, path: Path | None = None, *, otherwise: type[MembridgeError] = FileAccessError
) -> MembridgeError:
    """Return what the operating system said about `path`, or the path that it names, as an error of this project.

    Where it is neither a full disk nor a failing one it is an error of the kind `otherwise`.
    """
    named = error.filename2 or error.filename
    if path is None:
        path = Path(os.fsdecode(named)) if isinstance(named, str | bytes) else Path("a file of membridge")
    if error.errno in FULL:
        return full(path)
    if error.errno in FAILING:
        return failing(path, error.strerror or str(error))
    return otherwise(f"{path}: {error.strerror or error}", remedy="check the permissions and the disk that holds it")


def of_file(error: BaseException) -> MembridgeError | None:
    """Return what the operating system said about a file as an error of this project; None for any other exception."""
    # A server's are not a disk's.
    if not isinstance(error, OSError) or isinstance(error, ConnectionError | TimeoutError):
        return None
    return meaning(error)


def full(path: Path) -> DiskFullError:
    """Return the error for a file that has no room to be written."""
    return DiskFullError(f"no space left while writing {path}")


def failing(path: Path, reason: str) -> FileAccessError:
    """Return the error for a file whose disk did not do what it was asked to."""
    return FileAccessError(
        f"{path}: {reason}",
        remedy="the disk may be failing: read the system's log (`dmesg`) and copy what is on it to another disk",
    )
