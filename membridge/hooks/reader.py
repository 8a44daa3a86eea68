"""Publishes the events of the spool in their order, and deletes each once it is stored.

A file goes only after its event is stored, so a kill or a lost answer publishes it again, under the same id. Without
NATS the files wait; of too many the oldest are dropped. One project that cannot be reached does not hold up another.
"""

import asyncio
from dataclasses import dataclass
from typing import Protocol

from membridge.aio import threads
from membridge.aio.backoff import Backoff
from membridge.errors import MembridgeError, UnknownProjectError
from membridge.hooks import spool
from membridge.hooks.event_file import DamagedEventError, HookEvent, parse
from membridge.hooks.folder_watch import FolderWatch
from membridge.hooks.paths import HookPaths
from membridge.hooks.spool import Waiting
from membridge.system import clock
from membridge.system.logging import get_logger
from membridge.system.problem import Problem
from schemas.identity import ProjectId

log = get_logger("membridge.hooks")


@dataclass(frozen=True, slots=True)
class Taken:
    """An event that was read from the spool, of which project it is, and when its hook ran."""

    event: HookEvent
    project: ProjectId
    at: str


class Sink(Protocol):
    """Where events go."""

    def project_of(self, event: HookEvent) -> ProjectId:
        """Return the project of an event. Raises UnknownProjectError. Blocking."""
        ...

    async def take(self, taken: Taken, secret: bytes) -> None:
        """Store the event and act on it. Errors: those of the bus; the event then waits."""
        ...

    def reaches(self) -> int:
        """Return how many projects there are to publish for."""
        ...


class SpoolReader:
    """The reader of one spool."""

    def __init__(self, paths: HookPaths, sink: Sink) -> None:
        self._paths, self._sink = paths, sink
        self._secret, self._problem = b"", Problem(log, "session events wait", level="info")
        #: Stored events whose file could not be removed.
        self._stored: set[str] = set()

    async def run(self) -> None:
        """Publish what comes until cancelled. Errors: those of the spool's folder."""
        self._secret = await threads.run(spool.prepare, self._paths)
        watch, backoff = FolderWatch(self._paths.new), Backoff()
        try:
            while True:
                failure = await self._publish_all()
                if failure is None:
                    backoff.reset()
                    await watch.come()
                    continue
                self._problem.failed(failure)
                if dropped := await threads.run(spool.trim, self._paths):
                    log.warning("session events dropped: too many wait", events=dropped, reason=failure.message)
                await asyncio.sleep(backoff.failed())
        finally:
            watch.close()

    async def _publish_all(self) -> MembridgeError | None:
        """Publish until nothing waits; return why some still do."""
        failed: dict[ProjectId, MembridgeError] = {}
        while entries := await threads.run(spool.waiting, self._paths):
            for entry in entries:
                await self._publish(entry, failed)
                if failed and len(failed) >= self._sink.reaches():
                    break
            if failed:
                return next(iter(failed.values()))
        self._problem.over()
        return None

    async def _publish(self, entry: Waiting, failed: dict[ProjectId, MembridgeError]) -> None:
        """Publish one event and remove its file, unless its project failed already or fails now."""
        if entry.name not in self._stored:
            taken = await threads.run(self._take, entry)
            if taken is None or taken.project in failed:
                return
            try:
                await self._sink.take(taken, self._secret)
            except MembridgeError as error:
                failed[taken.project] = error
                return
            self._stored.add(entry.name)
        await threads.run(spool.remove, self._paths, entry.name)
        self._stored.discard(entry.name)

    def _take(self, entry: Waiting) -> Taken | None:
        """Return the event of a file; one that is not an event is set aside."""
        try:
            event = parse(spool.read(self._paths, entry.name))
            return Taken(event, self._sink.project_of(event), clock.stamp(entry.at_ns / 1e9))
        except FileNotFoundError:
            return None
        except (DamagedEventError, UnknownProjectError) as error:
            kept = spool.set_aside(self._paths, entry.name)
            log.warning("session event set aside", path=str(kept), reason=str(error))
            return None
