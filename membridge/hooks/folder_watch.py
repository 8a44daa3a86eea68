"""Says when files may have come into a folder: by events of the operating system, else by a look each second."""

import asyncio
import os
import time
from pathlib import Path

from membridge.aio import threads
from membridge.aio.deadline import readable
from membridge.system import file_events
from membridge.system.file_events import FileEvents, Names
from membridge.system.logging import get_logger

log = get_logger("membridge.hooks")

#: Seconds between two looks that no event asked for, with events and without.
LOOK_EVERY, POLL_EVERY = 60.0, 1.0
#: Seconds after which events are tried again where there were none to get.
TRY_AGAIN = 600.0


def has_any(folder: Path) -> bool:
    """Return whether there is anything in a folder. Blocking. Raises OSError."""
    with os.scandir(folder) as entries:
        return next(entries, None) is not None


async def first_file(folder: Path) -> None:
    """Return once there is anything in `folder`. Raises FileAccessError for a missing one."""
    watch = FolderWatch(folder)
    try:
        while not await threads.run(has_any, folder):
            await watch.come()
    finally:
        watch.close()


class FolderWatch:
    """Watches one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._events: FileEvents | None = None
        self._try_at, self._why = 0.0, ""

    async def come(self) -> None:
        """Wait until a file may have come since the last call returned. Raises FileAccessError for a missing folder."""
        if await threads.run(self._renew):
            return
        if self._events is None:
            await self._poll()
        elif await readable(self._events.fileno(), LOOK_EVERY):
            self._events.read()

    async def _poll(self) -> None:
        while True:
            if await threads.run(has_any, self._folder):
                return
            await asyncio.sleep(POLL_EVERY)

    def close(self) -> None:
        """Close the descriptors."""
        opened, self._events = self._events, None
        if opened is not None:
            opened.close()

    def _renew(self) -> bool:
        """Open the events if there are none; return whether that was done, after which a look is due."""
        if self._events is not None and not self._events.is_over:
            return False
        self.close()
        if time.monotonic() < self._try_at:
            return False
        try:
            self._events = file_events.open_events({self._folder: Names(every=True)})
        except (FileNotFoundError, NotADirectoryError):
            raise
        except (OSError, AttributeError) as error:
            self._try_at = time.monotonic() + TRY_AGAIN
            if str(error) != self._why:
                log.warning("spool looked at each second, not by events", path=str(self._folder), reason=str(error))
            self._why = str(error)
            return False
        self._why = ""
        return True
