"""An object that is read while it is downloaded, and hashed as it is read: what was read is the object, or is not used.

One thread reads; whoever downloads tells it when there is more. Never trusts the length that anybody promises.
"""

import hashlib
import os
import threading
from pathlib import Path

from membridge.aio.deadline import Deadline

#: Seconds after which the reader looks by itself, for stores that seldom tell of their progress.
_LOOK = 0.2


class Arriving:
    """The file that a download writes. `read` is for one thread, everything else for any."""

    def __init__(self, path: Path, *, deadline: Deadline) -> None:
        self._path, self._deadline = path, deadline
        self._digest, self._at = hashlib.sha256(), 0
        self._news = threading.Condition()
        self._told, self._has_ended = 0, False

    def grew(self) -> None:
        """Tell the reader that there is more."""
        with self._news:
            self._told += 1
            self._news.notify()

    def end(self) -> None:
        """Tell the reader that there will be no more: it reads what there is, then nothing."""
        with self._news:
            self._has_ended = True
            self._news.notify()

    def read(self, size: int) -> bytes:
        """Return the next bytes, fewer than `size` only at the end. Blocking.

        Errors: DeadlineExceededError, the file's.
        """
        while True:
            with self._news:
                told, has_ended = self._told, self._has_ended
            found = self._there(size, whole=not has_ended)
            if len(found) == size or has_ended:
                self._digest.update(found)
                self._at += len(found)
                return found
            self._deadline.check("the download")
            with self._news:
                self._news.wait_for(lambda told=told: self._told != told or self._has_ended, _LOOK)

    def sha256(self) -> str:
        """Return the sha256 of what was read so far, in hex."""
        return self._digest.hexdigest()

    def _there(self, size: int, *, whole: bool) -> bytes:
        """Return up to `size` bytes; nothing if they have to be there as a `whole` and are not."""
        # Opened anew each time: a store may write under another name and rename, or begin again.
        try:
            with self._path.open("rb", buffering=0) as file:
                if whole and os.fstat(file.fileno()).st_size < self._at + size:
                    return b""
                return os.pread(file.fileno(), size, self._at)
        except FileNotFoundError:
            return b""
