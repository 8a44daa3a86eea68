"""Has the live database changed? Cheap enough to ask twice a second, in WAL and in rollback mode.

When to ask, `change_events` says.
"""

from pathlib import Path

import apsw

from membridge.claudemem.sql import Connection

#: Milliseconds to wait for a lock: if the database is locked, the check is repeated soon.
_PATIENCE = 50


class ChangeWatcher:
    """Reports whether the database at a path has changed since the last check.

    Survives a file that is missing, replaced or damaged: each of these turns counts as one change. May be used from
    any thread, by one at a time.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: Connection | None = None
        self._file: tuple[int, int] | None = None
        self._version: int | None = None
        #: Whether the last check found the database locked: it says nothing then.
        self.is_locked = False
        self.changed()

    def changed(self) -> bool:
        """Return whether the database changed since the last call, or since the watcher was made."""
        before = (self._file, self._version)
        self.is_locked = False
        file = self._identity()
        if file != self._file or self._connection is None:
            self._reopen(file)
        try:
            self._version = self._read_version()
        except apsw.BusyError:
            self.is_locked = True
            return False
        except apsw.Error:
            self.close()
            self._version = None
        return (self._file, self._version) != before

    def close(self) -> None:
        """Close the connection; the watcher may be used again."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _identity(self) -> tuple[int, int] | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def _reopen(self, file: tuple[int, int] | None) -> None:
        self.close()
        self._file = file
        if file is None:
            return
        try:
            connection = Connection(apsw.Connection(str(self._path.resolve()), flags=apsw.SQLITE_OPEN_READWRITE))
        except (apsw.Error, OSError):
            return
        connection.apsw.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        connection.apsw.wal_autocheckpoint(0)
        connection.apsw.set_busy_timeout(_PATIENCE)
        self._connection = connection

    def _read_version(self) -> int | None:
        if self._connection is None:
            return None
        return self._connection.number("PRAGMA data_version")
