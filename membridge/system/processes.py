"""The processes of this machine as Linux shows them below /proc, those that end meanwhile left out.

A process id alone names no process for long: it is used again. `Process.started` tells two of one id apart.
"""

import os
import re
import signal
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

#: Bytes of a command line that are read.
_MAX_COMMAND = 1 << 14
#: A container's id, or the scope of one, in the path of a control group.
_CONTAINER = re.compile(
    r"(?:docker|libpod|crio|cri-containerd|containerd|buildkit|lxc\.payload|nspawn)[-/.:](?:[^/]*[-:])?([\w.-]+)"
    r"|/kubepods[^/]*/(\S+)|/machine\.slice/([^/\s]+)"
)


@dataclass(frozen=True, slots=True)
class Process:
    """A process. `container` is the id of the one that it is in, empty outside; `service` its systemd unit, if any."""

    pid: int
    parent: int
    name: str
    #: Ticks since the machine started.
    started: int
    age: float
    resident: int
    user: int
    command: tuple[str, ...]
    container: str
    service: str
    namespace: str


def table(root: Path = Path("/proc")) -> dict[int, Process]:
    """Return the processes by their id, zombies and kernel threads left out. Blocking."""
    uptime = float((root / "uptime").read_text("ascii").split()[0])
    found: dict[int, Process] = {}
    for entry in root.iterdir():
        if entry.name.isdecimal():
            with suppress(OSError, ValueError, IndexError):
                process = _read(entry, uptime)
                if process is not None:
                    found[process.pid] = process
    return found


def _read(entry: Path, uptime: float) -> Process | None:
    name, _, rest = (entry / "stat").read_text("utf-8", errors="replace").partition(" (")[2].rpartition(") ")
    fields = rest.split()
    with (entry / "cmdline").open("rb") as file:
        command = tuple(part.decode(errors="replace") for part in file.read(_MAX_COMMAND).split(b"\0") if part)
    if fields[0] == "Z" or not command:
        return None
    started = int(fields[19])
    control = (entry / "cgroup").read_text("utf-8", errors="replace")
    inside = _CONTAINER.search(control)
    last = control.strip().rpartition("/")[2]
    return Process(
        pid=int(entry.name),
        parent=int(fields[1]),
        name=name,
        started=started,
        age=uptime - started / os.sysconf("SC_CLK_TCK"),
        resident=int(fields[21]) * os.sysconf("SC_PAGE_SIZE"),
        user=(entry / "stat").stat().st_uid,
        command=command,
        container=next(filter(None, inside.groups()), "") if inside else "",
        service=last if last.endswith(".service") else "",
        namespace=_namespace(entry),
    )


def _namespace(entry: Path) -> str:
    try:
        return str((entry / "ns" / "pid").readlink())
    except OSError:
        # Of another user, or hidden.
        return ""


@dataclass(frozen=True, slots=True)
class Opened:
    """What a file descriptor is: `target` as /proc names it; `writes` if it may be written to."""

    process: int
    number: int
    target: str
    writes: bool


def opened(pids: Iterable[int], root: Path = Path("/proc")) -> list[Opened]:
    """Return the open file descriptors of these processes, as far as this user may see them. Blocking."""
    found: list[Opened] = []
    for pid in pids:
        with suppress(OSError):
            for entry in (root / str(pid) / "fd").iterdir():
                with suppress(OSError, ValueError):
                    # The owner's bits of the link are the directions that it is open for.
                    writes = bool(entry.lstat().st_mode & 0o200)
                    found.append(Opened(pid, int(entry.name), str(entry.readlink()), writes))
    return found


class Handle:
    """A process that stays the same one: a signal to it never reaches another that got its id."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self._file = os.pidfd_open(process.pid)
        try:
            now = _read(Path("/proc") / str(process.pid), 0.0)
        except (OSError, ValueError, IndexError):
            now = None
        if now is None or now.started != process.started:
            os.close(self._file)
            raise ProcessLookupError(f"process {process.pid} ended")

    def send(self, number: signal.Signals) -> None:
        """Send a signal; nothing happens when the process ended. Raises PermissionError."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._file, number)

    def fileno(self) -> int:
        """Return the file that is readable once the process ended."""
        return self._file

    def close(self) -> None:
        """Forget the process."""
        os.close(self._file)
