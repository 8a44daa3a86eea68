"""End the server that an earlier run left behind. Its process id and start time are in a file beside its state.

Two servers over one folder would ruin it, and an old one would hold the port for ever. The system reuses process ids,
so only a process that also has the noted start time is ended.
"""

import json
import os
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from membridge.aio.deadline import Deadline
from membridge.errors import BusUnavailableError, MembridgeError
from membridge.system import files
from membridge.system.logging import get_logger

#: The file in the server's folder.
FILE = "server.pid"
#: Seconds that a server gets to flush its store, and then to end once it was killed.
STOP, KILL = 5.0, 5.0
#: Seconds between two checks where the system cannot report the end of a process.
_LOOK = 0.02
#: Seconds that `ps` may take.
_PS = 5.0

log = get_logger("membridge.embedded")


def note(directory: Path, pid: int) -> None:
    """Note the server of this folder. If the disk is full or fails, it runs without a note."""
    try:
        files.save(directory / FILE, json.dumps({"pid": pid, "started": started(pid) or ""}).encode())
    except MembridgeError as error:
        log.warning("nats-server is not noted", pid=pid, path=str(directory / FILE), reason=error.message)


def forget(directory: Path) -> None:
    """Note that the server of this folder has ended. A note that stays names a process that is gone."""
    files.discard(directory / FILE)


def end(directory: Path) -> int | None:
    """End the noted server and return its process id, or None if it does not run any more. Blocking.

    Raises BusUnavailableError when it cannot be ended.
    """
    noted = _noted(directory)
    if noted is None:
        return None
    pid, began = noted
    process = _Process(pid)
    try:
        # Checked while the process is held, so that no other can take its id.
        if started(pid) != began:
            return None
        log.warning("nats-server was left behind, ending it", pid=pid)
        for number, seconds in ((signal.SIGTERM, STOP), (signal.SIGKILL, KILL)):
            process.send(number)
            if process.ends_within(seconds):
                forget(directory)
                return pid
    except PermissionError as error:
        raise BusUnavailableError(
            f"nats-server (pid {pid}) still runs in {directory} and belongs to another user",
            remedy=f"end it with `sudo kill {pid}`",
        ) from error
    finally:
        process.close()
    raise BusUnavailableError(
        f"nats-server (pid {pid}) still runs in {directory} and does not end", remedy="restart this machine"
    )


def started(pid: int) -> str | None:
    """Return a process' start time, which identifies it among all that ever have its id; None when there is none."""
    return _started_by_proc(pid) if sys.platform == "linux" else _started_by_ps(pid)


class _Process:
    """A process, not always a child. A pidfd, where there are such, keeps its signals from any other process."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._descriptor: int | None = None
        if sys.platform == "linux":
            with suppress(OSError):
                self._descriptor = os.pidfd_open(pid)

    def send(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            if self._descriptor is not None:
                signal.pidfd_send_signal(self._descriptor, number)
            else:
                os.kill(self._pid, number)

    def ends_within(self, seconds: float) -> bool:
        if self._descriptor is not None:
            poll = select.poll()
            poll.register(self._descriptor, select.POLLIN)
            return bool(poll.poll(seconds * 1000))
        deadline, began = Deadline.after(seconds), started(self._pid)
        while began is not None and started(self._pid) == began:
            if deadline.passed:
                return False
            time.sleep(_LOOK)
        return True

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)


def _noted(directory: Path) -> tuple[int, str] | None:
    try:
        found = cast("dict[str, Any]", json.loads((directory / FILE).read_text("ascii")))
        pid, began = int(found["pid"]), str(found["started"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return (pid, began) if pid > 1 and began else None


def _started_by_proc(pid: int) -> str | None:
    try:
        # The program's name is in brackets and may itself contain brackets.
        fields = Path(f"/proc/{pid}/stat").read_text("ascii", errors="replace").rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return None
    state, ticks = fields[0], fields[19]
    return None if state in {"Z", "X"} else f"{boot} {ticks}"


def _started_by_ps(pid: int) -> str | None:
    command = ["ps", "-o", "lstart=", "-p", str(pid)]
    try:
        done = subprocess.run(  # noqa: S603 - a fixed command
            command, capture_output=True, env={"PATH": os.defpath, "LC_ALL": "C"}, timeout=_PS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode("ascii", "replace").strip() or None
