"""Says when files may have come into a folder: by events of the operating system, else by a look each second."""

import asyncio
import os
from pathlib import Path

from membridge.aio import threads
from membridge.aio.deadline import readable
from membridge.system.event_source import EventSource
from membridge.system.file_events import Names, Places
from membridge.system.logging import get_logger

log = get_logger("membridge.hooks")

#: Seconds between two looks that no event asked for, with events and without.
LOOK_EVERY, POLL_EVERY = 60.0, 1.0


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
        self._source = EventSource(
            log,
            polled="folder of hooks looked at each second, not by events",
            watched="folder of hooks watched by events again",
            path=str(folder),
        )

    async def come(self) -> None:
        """Wait until a file may have come since the last call returned. Raises FileAccessError for a missing folder."""
        events = self._source.events
        if events is None or events.is_over:
            if await threads.run(self._source.renew, self._places):
                return
            events = self._source.events
        if events is None:
            await self._poll()
        elif await readable(events.fileno(), LOOK_EVERY):
            events.read()

    async def _poll(self) -> None:
        while True:
            if await threads.run(has_any, self._folder):
                return
            await asyncio.sleep(POLL_EVERY)

    def close(self) -> None:
        """Close the descriptors."""
        self._source.close()

    def _places(self) -> Places:
        return {self._folder: Names(every=True)}
