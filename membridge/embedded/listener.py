"""Which program listens at the port that a server needs.

Linux names the program if it belongs to the same user, or to anyone for root; otherwise only its user. On other systems
only the fact that the port is taken is known.
"""

import errno
import pwd
import re
import socket
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

#: State of a listening socket in the kernel's table.
_LISTENING = "0A"
#: How many ports after a taken one are tried.
_NEAR = 100


@dataclass(frozen=True, slots=True)
class Listener:
    """A program that listens: `pid`, 0 if it is another user's, and `words` that describe it."""

    pid: int
    program: str
    words: str


def is_taken(address: str, port: int) -> bool:
    """Whether a program listens at a port already."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.create_server((address, port), family=family):
            return False
    except OSError as error:
        return error.errno == errno.EADDRINUSE


def free_near(address: str, port: int) -> int | None:
    """Return the next free port."""
    most = min(port + _NEAR, 65_536)
    return next((near for near in range(port + 1, most) if not is_taken(address, near)), None)


def listener_at(port: int) -> Listener:
    """Return what listens at a port, as far as the system shows it. Blocking."""
    for inode, owner in _sockets(port):
        if (pid := _process_with(inode)) is not None:
            name = _name(pid)
            return Listener(pid, name, f"pid {pid} ({name})")
        return Listener(0, "", f"a program of user {_user(owner)}")
    return Listener(0, "", "another program")


def _sockets(port: int) -> list[tuple[str, int]]:
    """Return inode and user of each socket that listens at the port."""
    found: list[tuple[str, int]] = []
    for table in ("tcp", "tcp6"):
        with suppress(OSError, ValueError, IndexError):
            for line in Path(f"/proc/net/{table}").read_text("ascii").splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                    found.append((fields[9], int(fields[7])))
    return found


def _process_with(inode: str) -> int | None:
    wanted = f"socket:[{inode}]"
    for process in Path("/proc").iterdir():
        if not process.name.isdecimal():
            continue
        # A process may end meanwhile, and another user's process hides its files.
        with suppress(OSError):
            if any(_leads_to(file, wanted) for file in (process / "fd").iterdir()):
                return int(process.name)
    return None


def _leads_to(file: Path, wanted: str) -> bool:
    with suppress(OSError):
        return str(file.readlink()) == wanted
    return False


def _name(pid: int) -> str:
    with suppress(OSError):
        return re.sub(r"[^\x20-\x7e]", "?", Path(f"/proc/{pid}/comm").read_text("utf-8", errors="replace").strip())
    return "ended meanwhile"


def _user(owner: int) -> str:
    try:
        return pwd.getpwuid(owner).pw_name
    except KeyError:
        return str(owner)
