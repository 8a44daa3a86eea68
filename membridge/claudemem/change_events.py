"""Yields whenever the live database changed: woken by the operating system's events, not by looking all the time.

An event only says when to look; `ChangeWatcher` says whether there was a change. Where the system has no events to
give, or a change came without one, the database is looked at twice a second instead, and the log says so.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncGenerator
from pathlib import Path

from membridge.aio import threads
from membridge.aio.deadline import readable
from membridge.claudemem.changes import ChangeWatcher
from membridge.system.event_source import EventSource
from membridge.system.file_events import Names, Places
from membridge.system.logging import get_logger

log = get_logger("membridge.autosync")

#: Seconds between two looks that no event asked for: they show whether the events can be relied upon.
LOOK_EVERY = 60.0
#: Seconds between two looks while there are no events to wait for.
POLL_EVERY = 0.5
#: Seconds between two looks while a writer is busy, and how much longer than one look the pause is.
PAUSE, PAUSES = 0.05, 9.0
#: Seconds after an event at which to look again: what was written can be seen once the writer has forced it to disk.
AFTER_EVENT = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4)
#: Links that are followed, as many as Linux follows.
_LINKS = 40


async def changes(path: Path) -> AsyncGenerator[None]:
    """Yield whenever the database at `path` has changed since the last time; what the caller does is part of a look."""
    events = _Events(path)
    watcher = await threads.run(ChangeWatcher, path)
    try:
        while True:
            was_called = await events.come()
            began = time.monotonic()
            if await threads.run(watcher.changed):
                if not was_called:
                    events.missed_one()
                yield
            if watcher.is_locked:
                events.look_soon()
            await asyncio.sleep(max(PAUSE, PAUSES * (time.monotonic() - began)))
    finally:
        events.close()
        await threads.run(watcher.close)


def places(path: Path) -> Places:
    """Return what to watch of the database at `path`: its files, and each link on the way there, or what is missing."""
    found: defaultdict[Path, set[str]] = defaultdict(set)
    current, left = Path(path.anchor), list(path.parts[1:])
    for _ in range(_LINKS + len(left)):
        if not left:
            break
        name = left.pop(0)
        if name == "..":
            current = current.parent
            continue
        target = _link(current / name)
        if target is not None:
            found[current].add(name)
            current, left = Path(target.anchor) if target.is_absolute() else current, [*_steps(target), *left]
        elif left and not (current / name).is_dir():
            found[current].add(name)
            return {folder: Names(frozenset(names)) for folder, names in found.items()}
        elif left:
            current /= name
        else:
            # Never opened here: closing a descriptor of the database drops this process's locks on it.
            found[current].add(name)
            contents = frozenset({f"{name}-wal", f"{name}-journal"})
            return {
                folder: Names(frozenset(names), contents if folder == current else frozenset())
                for folder, names in found.items()
            }
    return {folder: Names(frozenset(names)) for folder, names in found.items()}


def _steps(path: Path) -> tuple[str, ...]:
    return path.parts[1:] if path.is_absolute() else path.parts


def _link(path: Path) -> Path | None:
    try:
        return path.readlink()
    except OSError:
        return None


class _Events:
    """The events of one database, opened anew whenever its files are to be found elsewhere."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._source = EventSource(
            log,
            polled="database looked at twice a second, not by events",
            watched="database watched by events again",
            database=str(path),
        )
        #: When the next look is due without an event, and how many were since the last one.
        self._look_at, self._looks = 0.0, 0

    async def come(self) -> bool:
        """Wait until the database may have changed; return False when no event says so, and one would have."""
        while True:
            if await threads.run(self._renew):
                self.look_soon()
                return True
            events = self._source.events
            if events is None:
                await asyncio.sleep(POLL_EVERY)
                return True
            if not await readable(events.fileno(), max(0.0, self._look_at - time.monotonic())):
                return self._next_look()
            if events.read():
                self.look_soon()
                return True
            # Of another file in one of the folders.
            await asyncio.sleep(PAUSE)

    def look_soon(self) -> None:
        """Look again soon and then ever more seldom, whether or not an event comes."""
        self._looks, self._look_at = 0, time.monotonic() + AFTER_EVENT[0]

    def missed_one(self) -> None:
        """Note that the database changed without an event: do not rely on them any more, unless one is there by now."""
        events = self._source.events
        if events is None:
            return
        if events.read():
            self.look_soon()
        else:
            self._source.give_up("it changed without an event", until=float("inf"))

    def close(self) -> None:
        self._source.close()

    def _next_look(self) -> bool:
        """Set when the next look without an event is due; return whether the present one is because of an event."""
        was_called = self._looks < len(AFTER_EVENT)
        self._looks += 1
        wait = AFTER_EVENT[self._looks] if self._looks < len(AFTER_EVENT) else LOOK_EVERY
        self._look_at = time.monotonic() + wait
        return was_called

    def _renew(self) -> bool:
        """Open the events where the database's files are now; return whether they were opened: a look is due then."""
        try:
            return self._source.renew(lambda: places(self._path))
        except (FileNotFoundError, NotADirectoryError):
            # It went meanwhile: the next try finds it elsewhere, or missing.
            return False
