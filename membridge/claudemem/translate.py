"""What SQLite says, as this project's errors: the one place that reads apsw's exceptions."""

import errno
from collections.abc import Generator
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
    match error:
        case apsw.BusyError() | apsw.LockedError():
            return DatabaseBusyError(f"database {path} stayed locked by another program")
        case apsw.FullError():
            return DiskFullError(f"no room to write {path}")
        case apsw.NotADBError():
            return DatabaseInvalidError(f"{path} is not a SQLite database")
        case apsw.CorruptError():
            return DatabaseCorruptError(f"database {path} is damaged: {error}", remedy=_RESTORE)
        case apsw.InterruptError():
            return DeadlineExceededError(f"work on database {path} took too long")
        case apsw.CantOpenError():
            if not path.exists():
                return DatabaseMissingError(f"there is no database {path}")
            return DatabaseInvalidError(f"{path} cannot be opened", remedy="check its owner and permissions")
        case apsw.ReadOnlyError() | apsw.PermissionsError():
            return DatabaseInvalidError(f"database {path} cannot be written", remedy="check its owner and permissions")
        case _:
            return DatabaseInvalidError(f"database {path}: {error}")
