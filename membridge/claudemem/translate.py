"""SQLite's errors as this project's; only this module reads apsw's exceptions."""

import errno
import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import apsw

from membridge.errors import (
    DatabaseBusyError,
    DatabaseCorruptError,
    DatabaseInvalidError,
    DatabaseMissingError,
    DeadlineExceededError,
    MembridgeError,
)
from membridge.system import files

#: Bytes free below which a disk counts as full: SQLite's smallest files do not fit then.
_ROOM = 256 << 10
_OWNER = "check its owner and permissions, and those of its folder"
#: What helps against a damaged database, with a backup and without one.
RESTORE = "run `membridge backups restore newest`, or without a backup `membridge pull --replace`"


@contextmanager
def translated(path: Path) -> Generator[None]:
    """Raise SQLite's and the system's errors in the body as ours, naming `path`."""
    try:
        yield
    except apsw.Error as error:
        raise _translate(error, path) from error
    except UnicodeDecodeError as error:
        raise DatabaseCorruptError(f"database {path} holds text that is not UTF-8", remedy=RESTORE) from error
    except OSError as error:
        if isinstance(error, FileNotFoundError):
            raise DatabaseMissingError(f"there is no database {path}") from error
        raise files.meaning(error, path, otherwise=DatabaseInvalidError) from error


def is_damage(error: MembridgeError) -> bool:
    """Return whether an error of `translated` says that the file is not a sound database.

    Not so for one that is locked, cannot be opened or read just now, or has no room: it may be sound.
    """
    passing = (apsw.CantOpenError, apsw.ReadOnlyError, apsw.PermissionsError)
    return isinstance(error, DatabaseInvalidError) and not isinstance(error.__cause__, passing)


def _translate(error: apsw.Error, path: Path) -> MembridgeError:
    if _says_full(error) or (isinstance(error, apsw.IOError | apsw.CantOpenError) and _is_full(path.parent)):
        return files.full(path)
    for kinds, make in _MEANINGS:
        if isinstance(error, kinds):
            return make(path)
    if isinstance(error, apsw.CorruptError):
        return DatabaseCorruptError(f"database {path} is damaged: {error}", remedy=RESTORE)
    return DatabaseInvalidError(f"database {path}: {error}", remedy="run `membridge doctor`")


def _says_full(error: BaseException | None) -> bool:
    # SQLite ends the transaction on a full disk; the roll-back that follows then fails in its own words.
    while error is not None and not isinstance(error, apsw.FullError):
        error = error.__context__
    return error is not None


def _is_full(folder: Path) -> bool:
    """Whether the disk is full: SQLite does not report that for the WAL's index or a file that it cannot create."""
    try:
        facts = os.statvfs(folder)
    except OSError:
        return False
    return facts.f_bavail * facts.f_frsize < _ROOM or (facts.f_files > 0 and facts.f_favail == 0)


def _cannot_open(path: Path) -> MembridgeError:
    if not path.exists():
        return DatabaseMissingError(f"there is no database {path}")
    return DatabaseInvalidError(f"{path} cannot be opened", remedy=_OWNER)


_MEANINGS: tuple[tuple[tuple[type[apsw.Error], ...], Callable[[Path], MembridgeError]], ...] = (
    (
        # A protocol error is a lock that SQLite did not get in ten seconds of tries.
        (apsw.BusyError, apsw.LockedError, apsw.ProtocolError),
        lambda path: DatabaseBusyError(f"database {path} stayed locked by another program"),
    ),
    ((apsw.IOError,), lambda path: files.failing(path, os.strerror(errno.EIO))),
    ((apsw.NotADBError,), lambda path: DatabaseCorruptError(f"{path} is not a SQLite database", remedy=RESTORE)),
    ((apsw.InterruptError,), lambda path: DeadlineExceededError(f"work on database {path} took too long")),
    ((apsw.CantOpenError,), _cannot_open),
    (
        (apsw.ReadOnlyError, apsw.PermissionsError),
        lambda path: DatabaseInvalidError(f"database {path} cannot be written", remedy=_OWNER),
    ),
)
