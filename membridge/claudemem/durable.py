"""Force to the disk what another program committed to its database.

claude-mem's worker commits with `synchronous = NORMAL`: its newest rows are in the kernel's memory until the next
checkpoint, and a power cut takes them. Whatever must not be ahead of the live database, such as a snapshot that other
nodes have, waits for this. Nothing is checkpointed: that stays the worker's.
"""

from contextlib import suppress
from pathlib import Path

import apsw

from membridge.claudemem import open_files
from membridge.claudemem.connection import resolve
from membridge.claudemem.translate import translated
from membridge.system import files


def force(live: Path) -> None:
    """Force everything that is committed in the database at `live` to the disk, whatever program did it. Blocking.

    The WAL first: what a checkpoint moves meanwhile is in the file when that follows. Errors: DatabaseMissingError,
    DiskFullError, FileAccessError on a failing disk.
    """
    real = resolve(live)
    with translated(live):
        with suppress(FileNotFoundError):
            files.sync_path(Path(f"{real}-wal"))
        # The file itself through SQLite's descriptor: another one, closed, would take the locks away.
        connection = apsw.Connection(str(real), flags=apsw.SQLITE_OPEN_READWRITE)
        try:
            connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
            open_files.force(real)
        finally:
            connection.close()
        files.sync_path(real.parent)
