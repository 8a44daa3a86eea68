"""How long a connection waits for a lock that another process holds: as long as something moves there.

A lock that changes hands, or a long transaction that keeps writing, is waited for until the deadline. A lock that is
held while nothing is written is reported after a few seconds, with the process that holds it.
"""

import time
from pathlib import Path

from membridge.aio.deadline import Deadline
from membridge.claudemem.open_files import lock_holder
from membridge.errors import DatabaseBusyError

#: Seconds without a write to the database or its WAL after which a lock is reported.
SILENCE = 5.0
#: Seconds between two tries for the lock, at first and at most: SQLite's own.
_FIRST, _MOST = 0.001, 0.05


class Patience:
    """Waits for the locks of one connection to the database at `path`; a busy handler of SQLite."""

    def __init__(self, path: Path, deadline: Deadline) -> None:
        self._path, self._deadline = path, deadline
        self._seen: tuple[int, ...] = ()
        self._moved = 0.0

    def wait(self, tries: int) -> bool:
        """Wait a moment and return True to try again. Raises DatabaseBusyError when waiting is pointless."""
        now, seen = time.monotonic(), self._state()
        if tries == 0 or seen != self._seen:
            self._seen, self._moved = seen, now
        silence = now - self._moved
        if silence > SILENCE or self._deadline.passed:
            raise busy(self._path, silence)
        time.sleep(min(_FIRST * 2 ** min(tries, 10), _MOST, max(0.0, self._deadline.remaining())))
        return True

    def _state(self) -> tuple[int, ...]:
        """Return a value that changes with every write; never opens the files."""
        found: list[int] = []
        for suffix in ("", "-wal", "-journal"):
            try:
                facts = Path(f"{self._path}{suffix}").stat()
            except OSError:
                found.append(0)
            else:
                found += [facts.st_ino, facts.st_size, facts.st_mtime_ns]
        return tuple(found)


def busy(path: Path, silence: float) -> DatabaseBusyError:
    """Return the error for a lock that stays, with its holder if the system shows it."""
    pid = lock_holder(path)
    holder = "another program" if pid is None else f"process {pid}{_name(pid)}"
    since = f", which has written nothing for {silence:.0f} s" if silence > SILENCE else ""
    find = f"find the program with `lsof {path}`, then " if pid is None else ""
    return DatabaseBusyError(
        f"the database {path} is locked by {holder}{since}",
        remedy=f"{find}wait for it or end it, and try again",
    )


def _name(pid: int) -> str:
    try:
        return f" ({Path(f'/proc/{pid}/comm').read_text(encoding='utf-8', errors='replace').strip()})"
    except OSError:
        return ""
