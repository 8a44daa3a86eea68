"""A writer that behaves like claude-mem's worker: its own process, WAL, a busy timeout, one transaction per row.

Run as a module: `python -m membridge.testing.writer DATABASE COUNT LABEL`. Uses Python's own SQLite, as a
foreign program would.
"""

import hashlib
import sqlite3
import sys
import time
from contextlib import closing

#: claude-mem's worker waits this long for a lock, in milliseconds.
BUSY_TIMEOUT_MS = 5000

_SESSION = (
    "INSERT OR IGNORE INTO sdk_sessions(content_session_id, memory_session_id, project, started_at, started_at_epoch,"
    " status) VALUES (?, ?, 'demo', ?, ?, 'active')"
)
_OBSERVATION = (
    "INSERT INTO observations(memory_session_id, project, type, title, narrative, created_at, created_at_epoch,"
    " content_hash) VALUES (?, 'demo', 'discovery', ?, ?, ?, ?, ?)"
)


def write(database: str, count: int, label: str) -> None:
    """Add `count` observations titled after `label` to the database."""
    with closing(sqlite3.connect(database, timeout=BUSY_TIMEOUT_MS / 1000, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        session = f"demo-{label}"
        stamp, epoch = _now()
        connection.execute(_SESSION, (session, f"mem-{session}", stamp, epoch))
        for number in range(count):
            title, (stamp, epoch) = f"{label} learned fact {number}", _now()
            narrative = f"What {label} found out, number {number}."
            digest = hashlib.sha256(f"mem-{session}{title}{narrative}".encode()).hexdigest()[:16]
            connection.execute(_OBSERVATION, (f"mem-{session}", title, narrative, stamp, epoch, digest))


def _now() -> tuple[str, int]:
    seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    milliseconds = nanoseconds // 1_000_000
    return f"{stamp}.{milliseconds:03d}Z", seconds * 1000 + milliseconds


if __name__ == "__main__":
    write(sys.argv[1], int(sys.argv[2]), sys.argv[3])
