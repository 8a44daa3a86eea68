"""What SQLite says, as this project's errors: the one place that reads apsw's exceptions."""

import errno
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
    DiskFullError,
    MembridgeError,
)

_OWNER = "check its owner and permissions"
_RESTORE = "restore it from a backup: `membridge backups`"


@contextmanager
def translated(path: Path) -> Generator[None]:
    """Raise what goes wrong with the database at `path` in the body as an error that names it."""
    try:
        yield
    except apsw.Error as error:
        raise _translate(error, path) from error
    except UnicodeDecodeError as error:
        raise DatabaseCorruptError(f"database {path} holds text that is not UTF-8", remedy=_RESTORE) from error
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise DiskFullError(f"no room to write {path}") from error
        if isinstance(error, FileNotFoundError):
            raise DatabaseMissingError(f"there is no database {path}") from error
        raise DatabaseInvalidError(f"{path} cannot be used: {error.strerror}") from error


def _translate(error: apsw.Error, path: Path) -> MembridgeError:
    for kinds, make in _MEANINGS:
        if isinstance(error, kinds):
            return make(path)
    if isinstance(error, apsw.CorruptError):
        return DatabaseCorruptError(f"database {path} is damaged: {error}", remedy=_RESTORE)
    return DatabaseInvalidError(f"database {path}: {error}")


def _cannot_open(path: Path) -> MembridgeError:
    if not path.exists():
        return DatabaseMissingError(f"there is no database {path}")
    return DatabaseInvalidError(f"{path} cannot be opened", remedy=_OWNER)


_MEANINGS: tuple[tuple[tuple[type[apsw.Error], ...], Callable[[Path], MembridgeError]], ...] = (
    (
        (apsw.BusyError, apsw.LockedError),
        lambda path: DatabaseBusyError(f"database {path} stayed locked by another program"),
    ),
    ((apsw.FullError,), lambda path: DiskFullError(f"no room to write {path}")),
    ((apsw.NotADBError,), lambda path: DatabaseInvalidError(f"{path} is not a SQLite database")),
    ((apsw.InterruptError,), lambda path: DeadlineExceededError(f"work on database {path} took too long")),
    ((apsw.CantOpenError,), _cannot_open),
    (
        (apsw.ReadOnlyError, apsw.PermissionsError),
        lambda path: DatabaseInvalidError(f"database {path} cannot be written", remedy=_OWNER),
    ),
)
