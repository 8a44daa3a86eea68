"""Events of files from the operating system: a descriptor that becomes readable when something happened to one of them.

inotify on Linux, kqueue elsewhere; both without a thread. Neither reports what another machine does to a network file
system, so `open_events` refuses one.
"""

import ctypes
import errno
import os
import select
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from membridge.system.vnode_events import VnodeEvents

#: Linux: modify, moved from, moved to, create, delete, delete self, move self.
_MASK = 0x2 | 0x40 | 0x80 | 0x100 | 0x200 | 0x400 | 0x800
_ONLY_FOLDERS = 0x0100_0000
#: The folder was deleted or moved, its file system unmounted, its watch removed.
_OVER = 0x400 | 0x800 | 0x2000 | 0x8000
_OVERFLOW = 0x4000
_EVENT = struct.Struct("iIII")
#: What two errors mean here.
_USED_UP = {
    errno.ENOSPC: "all watches of this user are in use: raise fs.inotify.max_user_watches",
    errno.EMFILE: "all inotify instances of this user are in use: raise fs.inotify.max_user_instances",
}
#: Bytes that one read takes, and reads at once: the rest keeps the descriptor readable.
_READ, _READS = 65_536, 16

#: Where Linux says which file system a file is on.
MOUNTS = Path("/proc/self/mountinfo")
#: File systems on which another machine may write, besides every one of FUSE.
_REMOTE = frozenset(
    {"9p", "afs", "ceph", "cifs", "davfs", "lustre", "nfs", "nfs4", "smb3", "smbfs", "vboxsf", "virtiofs"}
)


@dataclass(frozen=True, slots=True)
class Names:
    """What to report of a folder: files that come, go or change; only the `contents` may be opened for that.

    With `every` each file of the folder is reported, whatever its name.
    """

    entries: frozenset[str] = frozenset()
    contents: frozenset[str] = frozenset()
    every: bool = False


#: Folders, and what to report of each.
Places = Mapping[Path, Names]


class FileEvents(Protocol):
    """Open events. `is_over` means that a folder is not where it was: they are to be opened anew."""

    is_over: bool

    def fileno(self) -> int:
        """Return the descriptor that is readable while there are events."""
        ...

    def read(self) -> bool:
        """Take the events that are there, without waiting; return whether one of them is of a file that was named."""
        ...

    def close(self) -> None:
        """Close the descriptors."""
        ...


def open_events(places: Places) -> FileEvents:
    """Open the events of `places`. Raises OSError when the system has none to give, or a folder is a network's."""
    for folder in places:
        if kind := remote_kind(folder):
            raise OSError(f"{folder} is on a file system of type {kind}, where another machine may write")
    if hasattr(select, "kqueue"):
        return VnodeEvents({folder: names.contents for folder, names in places.items()})
    return Inotify(places)


def remote_kind(path: Path) -> str:
    """Return the type of the file system that `path` is on if other machines may write there; empty if not."""
    try:
        device = path.stat().st_dev
        mounts = MOUNTS.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in mounts.splitlines():
        facts, _, source = line.partition(" - ")
        fields = facts.split()
        if len(fields) > 2 and fields[2] == wanted and source:
            kind = source.split()[0]
            return kind if kind in _REMOTE or kind.startswith("fuse.") else ""
    return ""


class Inotify:
    """Events by inotify, of which the standard library knows nothing: three calls of the C library."""

    def __init__(self, places: Places) -> None:
        library = ctypes.CDLL(None, use_errno=True)
        self.is_over = False
        self._names: dict[int, frozenset[str]] = {}
        self._every: set[int] = set()
        self._descriptor = _checked(library.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC), "inotify")
        try:
            for folder, names in places.items():
                added: Callable[[int, bytes, int], int] = library.inotify_add_watch
                watch = _checked(added(self._descriptor, os.fsencode(folder), _MASK | _ONLY_FOLDERS), str(folder))
                self._names[watch] = self._names.get(watch, frozenset()) | names.entries | names.contents
                self._every |= {watch} if names.every else set()
        except BaseException:
            self.close()
            raise

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._descriptor

    def read(self) -> bool:
        """Take the events that are there; return whether one of them matters."""
        came = False
        for watch, mask, name in self._taken():
            if mask & _OVER:
                self.is_over = True
            came = came or bool(mask & (_OVER | _OVERFLOW)) or watch in self._every
            came = came or name in self._names.get(watch, frozenset())
        return came

    def close(self) -> None:
        """Close the descriptor, and with it every watch."""
        os.close(self._descriptor)

    def _taken(self) -> Iterator[tuple[int, int, str]]:
        for _ in range(_READS):
            body = b""
            with suppress(BlockingIOError):
                body = os.read(self._descriptor, _READ)
            if not body:
                return
            at = 0
            while at < len(body):
                watch, mask, _, length = _EVENT.unpack_from(body, at)
                at += _EVENT.size + length
                yield watch, mask, os.fsdecode(body[at - length : at].rstrip(b"\0"))


def _checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, _USED_UP.get(number, f"{os.strerror(number)} ({what})"))
    return result
