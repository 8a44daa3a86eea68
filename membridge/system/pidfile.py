"""At most one daemon of a kind per state folder, its process id, and whether a process is alive."""

import fcntl
import os
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from membridge.errors import AlreadyRunningError
from membridge.system import files


@contextmanager
def only_one(state: Path, kind: str) -> Generator[None]:
    """Be the only `kind` in this state folder during the body.

    The file is locked, so it is free again however the process ends. Raises AlreadyRunningError that names the other
    process.
    """
    path = state / f"{kind}.pid"
    with files.translated(path):
        state.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = path.open("a+", encoding="ascii")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            pid = file.read(32).strip() or "unknown"
            raise AlreadyRunningError(
                f"`membridge {kind}` runs here already: pid {pid}, state in {state}",
                remedy=f"use it, or stop it with `kill {pid}`",
            ) from error
        with files.translated(path):
            os.ftruncate(file.fileno(), 0)
            os.write(file.fileno(), f"{os.getpid()}\n".encode())
        try:
            yield
        finally:
            # Only the lock counts, and it ends with the file; a process id that stays in it names a dead process.
            with suppress(OSError):
                os.ftruncate(file.fileno(), 0)


def holder(state: Path, kind: str) -> str | None:
    """Return the process id of the running `kind`, None when none runs. Blocking."""
    try:
        with (state / f"{kind}.pid").open("r", encoding="ascii") as file:
            pid = file.read(32).strip()
            # Try the lock only if the file names a process: trying would disturb one that is starting.
            if not pid.isdecimal() or not is_alive(int(pid)):
                return None
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return pid
    except OSError:
        return None
    return None


def is_alive(pid: int) -> bool:
    """Return whether the process runs; a zombie does not, its parent only has not waited for it yet."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return True
    # The state follows the name, which may contain anything.
    return stat.rpartition(b")")[2].split()[:1] != [b"Z"]
