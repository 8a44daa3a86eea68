"""The number of rows that only this machine has, counted on request and again after a change.

`nodes` and `status` both take the number from here, so they agree.
"""

from pathlib import Path

from membridge.aio import threads
from membridge.aio.deadline import Deadline
from membridge.errors import DatabaseBusyError, DatabaseInvalidError, DeadlineExceededError
from membridge.merge import collect
from membridge.snapshot.lane import Lane
from membridge.system.logging import get_logger

log = get_logger("membridge.project")

#: Seconds that a count for the node's presence may take.
REFRESH = 5.0

#: What changes with each write to a database: its file and its write-ahead log.
Stamps = tuple[tuple[int, int, int] | None, ...]


class Unsynced:
    """The count of one project. `rows` is the newest one."""

    def __init__(self, lane: Lane) -> None:
        self._lane = lane
        self._counted: tuple[object, ...] | None = None
        self.rows = 0

    async def count(self, *, deadline: Deadline) -> int:
        """Compare the database with the mirror and return the number of rows that only this machine has."""
        lane, found = self._lane, 0
        compared = await threads.run(self._compared)
        if await threads.run(lane.database.exists):
            found = await threads.run(
                collect.unsynced, lane.database, lane.mirror.path(), journal=lane.journal, deadline=deadline
            )
        self.rows, self._counted = found, compared
        return found

    async def refresh(self) -> None:
        """Count again when the database or the mirror changed since the last count."""
        if await threads.run(self._compared) == self._counted:
            return
        try:
            await self.count(deadline=Deadline.after(REFRESH))
        except (DeadlineExceededError, DatabaseBusyError, DatabaseInvalidError) as error:
            # Keep the last number; the next sync reports the problem with the database.
            log.debug("unsynced rows not counted", reason=error.message)

    async def stamps(self) -> Stamps:
        """Return what the database looks like now, for `none_since`."""
        return await threads.run(_stamps, self._lane.database)

    async def none_since(self, stamps: Stamps) -> None:
        """Note that everything was synced that the database held at `stamps`; what came later is counted next time."""
        self.rows, self._counted = 0, (stamps, await threads.run(self._lane.mirror.position))

    def _compared(self) -> tuple[object, ...]:
        return _stamps(self._lane.database), self._lane.mirror.position()


def _stamps(database: Path) -> Stamps:
    return tuple(_stamp(path) for path in (database, database.with_name(f"{database.name}-wal")))


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        facts = path.stat()
    except OSError:
        return None
    return facts.st_ino, facts.st_size, facts.st_mtime_ns
