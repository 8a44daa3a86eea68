"""The number of rows that only this machine has, counted on request and again after a change.

`nodes` and `status` both take the number from here, so they agree.
"""

from pathlib import Path

from membridge.aio import threads
from membridge.aio.deadline import Deadline
from membridge.errors import DatabaseBusyError, DatabaseInvalidError, DeadlineExceededError
from membridge.snapshot import standing
from membridge.snapshot.lane import Lane
from membridge.snapshot.standing import Numbers
from membridge.system.logging import get_logger

log = get_logger("membridge.project")

#: Seconds that a count for the node's presence may take.
REFRESH = 5.0

#: What changes with each write to a database: its file and its write-ahead log.
Stamps = tuple[tuple[int, int, int] | None, ...]


class Unsynced:
    """The count of one project. `rows` is the newest one; `by_table` has all rows of the database as of then."""

    def __init__(self, lane: Lane) -> None:
        self._lane = lane
        self._counted: tuple[object, ...] | None = None
        self.rows = 0
        self.by_table: dict[str, int] = {}

    async def count(self, *, deadline: Deadline) -> int:
        """Compare the database with the mirror and return the number of rows that only this machine has."""
        lane, found = self._lane, Numbers({}, 0)
        compared = await threads.run(self._compared)
        if await threads.run(lane.database.exists):
            found = await threads.run(standing.numbers, lane, deadline=deadline)
        self.rows, self.by_table, self._counted = found.unsynced, found.rows, compared
        return found.unsynced

    async def refresh(self) -> None:
        """Count again when the database or the mirror changed since the last count."""
        if await threads.run(self._compared) == self._counted:
            return
        try:
            await self.count(deadline=Deadline.after(REFRESH))
        except (DeadlineExceededError, DatabaseBusyError, DatabaseInvalidError) as error:
            # Keep the last number; the next sync reports the problem with the database.
            log.debug("unsynced rows not counted", reason=error.message)

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
