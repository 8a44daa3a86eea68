"""Events of files by kqueue, on macOS and the BSDs: of folders, and of the content of files that may be opened.

An event of a folder says that an entry came, went or was renamed, not which. A file's content is reported through a
descriptor of the file alone, so each is opened once it is there.
"""

import os
import select
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

#: Numbers of <sys/event.h>, the same on every BSD: the filter, and add, clear after reading.
_VNODE, _ADD, _CLEAR = -4, 0x1, 0x20
_DELETE, _WRITE, _EXTEND, _ATTRIBUTES, _RENAME, _REVOKE = 0x1, 0x2, 0x4, 0x8, 0x20, 0x40
_CONTENT = _DELETE | _WRITE | _EXTEND | _ATTRIBUTES | _RENAME | _REVOKE
_ENTRIES = _DELETE | _WRITE | _RENAME | _REVOKE
_GONE = _DELETE | _RENAME | _REVOKE
#: Only for events: does not keep a volume from being unmounted. Zero where the system has no such flag.
_EVENT_ONLY = int(getattr(os, "O_EVTONLY", 0))
_AT_ONCE = 64


class Happened(Protocol):
    """One event: of which descriptor, and what."""

    ident: int
    fflags: int


class Queue(Protocol):
    """What is used of `select.kqueue`."""

    def fileno(self) -> int:
        """Return the queue's descriptor."""
        ...

    def control(self, changes: list[object] | None, most: int, timeout: float | None, /) -> list[Happened]:
        """Register changes and take events."""
        ...

    def close(self) -> None:
        """Close the queue."""
        ...


class VnodeEvents:
    """Events of folders, each with the names of files in it whose content is reported too."""

    def __init__(
        self,
        places: Mapping[Path, frozenset[str]],
        *,
        queue: Callable[[], Queue] | None = None,
        event: Callable[..., object] | None = None,
    ) -> None:
        self.is_over = False
        self._event: Callable[..., object] = event or getattr(select, "kevent")  # noqa: B009 - not there on Linux
        self._queue: Queue = (queue or getattr(select, "kqueue"))()  # noqa: B009 - as above
        self._folders: dict[int, Path] = {}
        self._files: dict[Path, int] = {}
        self._wanted = [folder / name for folder, names in places.items() for name in sorted(names)]
        try:
            for folder in places:
                self._folders[self._opened(folder, os.O_DIRECTORY, _ENTRIES)] = folder
            self._open_files()
        except BaseException:
            self.close()
            raise

    def fileno(self) -> int:
        """Return the queue's descriptor."""
        return self._queue.fileno()

    def read(self) -> bool:
        """Take the events that are there, and open the files that came; return whether there were events."""
        events = self._queue.control(None, _AT_ONCE, 0)
        for event in events:
            if event.fflags & _GONE:
                self.is_over = self.is_over or event.ident in self._folders
                self._drop(event.ident)
        if events:
            self._open_files()
        return bool(events)

    def close(self) -> None:
        """Close every descriptor."""
        for descriptor in (*self._folders, *self._files.values()):
            os.close(descriptor)
        self._folders, self._files = {}, {}
        self._queue.close()

    def _drop(self, descriptor: int) -> None:
        for path, opened in list(self._files.items()):
            if opened == descriptor:
                del self._files[path]
                os.close(descriptor)

    def _open_files(self) -> None:
        for path in self._wanted:
            if path not in self._files:
                try:
                    self._files[path] = self._opened(path, 0, _CONTENT)
                except FileNotFoundError:
                    continue

    def _opened(self, path: Path, flags: int, wanted: int) -> int:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | _EVENT_ONLY | flags)
        try:
            self._queue.control([self._event(descriptor, _VNODE, _ADD | _CLEAR, wanted)], 0, 0)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor
