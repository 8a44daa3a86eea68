"""What the daemon keeps of one project, each figure with its time: `status`, presence and auto-sync answer from here.

One round at a time reads what changed since the last one. A round runs when something may have changed and every few
seconds; who asks may wait for one, but no longer than wished: while a push or a pull has the database, the figures of
before it are the answer.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from membridge.aio import threads
from membridge.aio.deadline import Deadline, comes_within
from membridge.errors import DatabaseBusyError, DeadlineExceededError, MembridgeError
from membridge.leadership.view import LeadershipView
from membridge.merge.audit import AUDIT_FILE, noted
from membridge.snapshot import standing
from membridge.snapshot.lane import Lane
from membridge.snapshot.standing import Numbers
from membridge.system import clock
from membridge.system.logging import get_logger
from schemas.node import ProjectPresence

log = get_logger("membridge.project")

#: Seconds that a count may take if nobody gave a deadline.
REFRESH = 30.0
#: Seconds between two rounds if nothing is known to have changed.
EVERY = 10.0

#: What changes with each write to a database: its file and its write-ahead log.
Stamps = tuple[tuple[int, int, int] | None, ...]


@dataclass(slots=True)
class Kept:
    """The figures. A time is empty until there was a figure; `error` is why the last round could not read them."""

    head_seq: int = 0
    head_at: str = ""
    mirror_seq: int = 0
    mirror_sha256: str = ""
    mirror_at: str = ""
    rows: dict[str, int] = field(default_factory=dict[str, int])
    unsynced: int = 0
    counted_at: str = ""
    conflicts: int = 0
    quarantined: int = 0
    journal_at: str = ""
    missed: int = 0
    audited_at: str = ""
    error: str = ""


def presence_of(lane: Lane, view: LeadershipView, kept: Kept) -> ProjectPresence:
    """Return the project of a lane as its node sees it."""
    head_seq = max(kept.head_seq, kept.mirror_seq)
    return ProjectPresence(
        project=lane.project,
        name=lane.name,
        role=view.role,
        epoch=view.epoch,
        head_seq=head_seq,
        head_at=kept.head_at,
        mirror_seq=kept.mirror_seq,
        mirror_sha256=kept.mirror_sha256,
        mirror_at=kept.mirror_at,
        lag=head_seq - kept.mirror_seq,
        rows=kept.rows,
        unsynced=kept.unsynced,
        counted_at=kept.counted_at,
        quarantined=kept.quarantined,
        conflicts=kept.conflicts,
        journal_at=kept.journal_at,
        missed=kept.missed,
        audited_at=kept.audited_at,
        database=str(lane.database),
        error=kept.error[:4_096],
    )


class Figures:
    """Keeps the figures of one project.

    `is_busy` says whether a push or a pull has the database now, `patience` how long an answer may wait for a round.
    """

    def __init__(self, lane: Lane, is_busy: Callable[[], bool], patience: Callable[[], float]) -> None:
        self._lane, self._is_busy, self._patience = lane, is_busy, patience
        self._counted: tuple[object, ...] | None = None
        self._turn = asyncio.Lock()
        self._wanted, self._read = asyncio.Event(), asyncio.Event()
        self._runs, self._changed_at = False, time.monotonic()
        self.kept = Kept()

    async def run(self) -> None:
        """Keep the figures up until cancelled."""
        self._runs = True
        try:
            while True:
                self._wanted.clear()
                read, self._read = self._read, asyncio.Event()
                await self.refresh()
                read.set()
                await comes_within(self._wanted, EVERY)
        finally:
            self._runs = False
            self._read.set()

    def changed(self) -> None:
        """Note that the database changed: the next round counts."""
        self._counted, self._changed_at = None, time.monotonic()
        self._wanted.set()

    def quiet_for(self) -> float:
        """Return the seconds since the last change that was noted."""
        return time.monotonic() - self._changed_at

    def saw_head(self, seq: int) -> None:
        """Note the head that was seen now."""
        self.kept.head_seq, self.kept.head_at = seq, clock.stamp()

    async def current(self) -> Kept:
        """Return the figures as of now if they can be read at once, and those that are kept otherwise."""
        if not self._runs:
            await self.refresh()
        elif patience := self._patience():
            # The round that begins next reads what was there when it was asked for; one that runs may not.
            read = self._read
            self._wanted.set()
            await comes_within(read, patience)
        return self.kept

    async def refresh(self) -> None:
        """Read the figures, those of the database if it or the mirror changed. A problem is kept as the `error`."""
        try:
            async with self._turn:
                await self._read_own_files()
                if not self._is_busy():
                    await self._recount()
        except (DeadlineExceededError, DatabaseBusyError) as error:
            # The figures of before stay, with their time.
            log.debug("unsynced rows not counted", reason=error.message)
        except MembridgeError as error:
            self.kept.error = error.message
            return
        self.kept.error = ""

    async def count(self, *, deadline: Deadline) -> int:
        """Compare the database with the mirror and return the number of rows that only this machine has."""
        async with self._turn:
            return await self._count(deadline)

    async def _recount(self) -> None:
        at = clock.stamp()
        if await threads.run(self._compared) == self._counted:
            self.kept.counted_at = at
        else:
            await self._count(Deadline.after(REFRESH))

    async def _count(self, deadline: Deadline) -> int:
        lane, found, kept = self._lane, Numbers({}, 0), self.kept
        at = clock.stamp()
        compared = await threads.run(self._compared)
        self._counted = compared
        try:
            if await threads.run(lane.database.exists):
                found = await threads.run(standing.numbers, lane, deadline=deadline)
        except BaseException:
            self._counted = None
            raise
        kept.rows, kept.unsynced, kept.counted_at = found.rows, found.unsynced, at
        return found.unsynced

    async def _read_own_files(self) -> None:
        lane, kept, at = self._lane, self.kept, clock.stamp()
        position = await threads.run(lane.mirror.position)
        kept.mirror_seq, kept.mirror_sha256 = (position.seq, position.sha256) if position else (0, "")
        kept.mirror_at = at
        if position and not kept.rows:
            # There was no database when they were counted, and one may have come with its first snapshot.
            kept.counted_at = ""
        if kept.mirror_seq > kept.head_seq:
            kept.head_seq, kept.head_at = kept.mirror_seq, at
        kept.audited_at = (await threads.run(noted, lane.folder / AUDIT_FILE)).ended_at
        kept.missed = lane.index.missed
        counts = await threads.run(lane.journal.counts)
        kept.conflicts, kept.quarantined, kept.journal_at = counts.conflicts, counts.quarantined, at

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
