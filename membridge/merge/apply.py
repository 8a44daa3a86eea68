"""Carrying out a merge on the live database, in transactions that the worker hardly notices.

What becomes of a bucket is decided under the write lock, on the rows that are there then: nothing that the worker wrote
since the comparison is overruled. Killed at any point and run again, the result is the same.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from membridge.claudemem.database import check_tables
from membridge.claudemem.sql import Connection
from membridge.claudemem.tables import Table
from membridge.deadline import Deadline
from membridge.merge.conflicts import Journal, Lost, row_payload
from membridge.merge.report import MergeReport, Source
from membridge.merge.rows import Key, Reader
from membridge.merge.three_way import Action, Change, Outcome, Row, Shape, edits
from membridge.merge.write import PoisonRowError, RowWriter

#: Seconds of work in one transaction; with the commit the write lock is held for less than 0.2 s.
HOLD = 0.06
#: Seconds between two transactions: a worker that waits for the lock asks for it every 0.1 s at the latest.
PAUSE = 0.02
#: Buckets read ahead of a transaction.
_AHEAD = 256

Decide = Callable[[Sequence[Row], Sequence[Row], Sequence[Row], Shape], Outcome]


@dataclass(frozen=True, slots=True)
class Bucket:
    """The rows of one key in base and theirs."""

    key: Key
    base: Sequence[Row]
    theirs: Sequence[Row]


@dataclass(frozen=True, slots=True)
class TableWork:
    """The buckets of one table that may need a change, and how many they are."""

    table: Table
    shape: Shape
    size: int
    buckets: Iterator[Bucket]


@dataclass(frozen=True, slots=True)
class Terms:
    """How a merge is carried out. `ours_stays` when ours is the canonical side of a clash.

    `save` is called once, before the first transaction that writes and without its lock; a merge that has nothing to
    write never calls it.
    """

    source: Source
    decide: Decide
    journal: Journal
    ours_stays: bool = False
    save: Callable[[], None] | None = None


@dataclass(slots=True)
class _Tally:
    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    conflicts: int = 0
    quarantined: int = 0
    proposals: int = 0
    touched: set[str] = field(default_factory=set[str])


class Merger:
    """Carries out one merge through one connection; used once."""

    def __init__(self, connection: Connection, writer: RowWriter, terms: Terms) -> None:
        self._connection, self._writer, self._terms = connection, writer, terms
        self._tally = _Tally()
        self._lost: list[Lost] = []
        self._taken_in: list[bytes] = []
        self._emptied: list[tuple[TableWork, Bucket]] = []
        self._refused: list[tuple[TableWork, Bucket]] = []
        self._is_last = False
        self._unsaved = terms.save
        self._had_quarantine = terms.journal.holds_rows()

    def run(
        self,
        work: Sequence[TableWork],
        path: Path,
        *,
        deadline: Deadline,
        progress: Callable[[int, int], None] | None = None,
    ) -> MergeReport:
        """Merge all buckets, sessions that go last, then check the tables that were written.

        `progress` is told buckets done and buckets in all after each transaction. Errors: the database's, and
        DeadlineExceededError; what was committed by then stays, and the next merge goes on from there.
        """
        total = sum(one.size for one in work)
        steps = _steps(work)
        done = 0
        while ahead := list(islice(steps, _AHEAD)):
            while ahead:
                deadline.check("merging")
                count = self._transaction(ahead)
                del ahead[:count]
                done += count
                if progress is not None:
                    progress(done, total)
        # Sessions that go waited until their rows were gone, others until a session that goes gave its memory id free.
        self._is_last = True
        for left in (self._emptied, self._refused):
            while left:
                deadline.check("merging")
                del left[: self._transaction(left)]
        if self._tally.touched:
            check_tables(self._connection, path, sorted(self._tally.touched))
        tally = self._tally
        return MergeReport(
            inserted=tally.inserted,
            updated=tally.updated,
            deleted=tally.deleted,
            conflicts=tally.conflicts,
            quarantined=tally.quarantined,
            unsynced=tally.proposals,
        )

    def _transaction(self, steps: Sequence[tuple[TableWork, Bucket]]) -> int:
        """Do as many steps as fit into one short transaction, one at least; return how many they were."""
        self._connection.run("BEGIN IMMEDIATE")
        began = time.monotonic()
        count = 0
        try:
            for work, bucket in steps:
                outcome = self._decide(work, bucket)
                if outcome.changes and self._unsaved is not None:
                    break
                self._carry_out(work, bucket, outcome)
                count += 1
                if time.monotonic() - began > HOLD:
                    break
            # Before the commit: a loser must not be gone because we were killed between the two.
            self._write_journal()
            self._connection.run("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.run("ROLLBACK")
            raise
        if not count and self._unsaved is not None:
            save, self._unsaved = self._unsaved, None
            save()
            return self._transaction(steps)
        if count < len(steps):
            time.sleep(PAUSE)
        return count

    def _decide(self, work: TableWork, bucket: Bucket) -> Outcome:
        ours = Reader(self._connection, work.table).bucket(bucket.key)
        base = self._without_set_aside(work, bucket, ours) if self._had_quarantine else bucket.base
        return self._terms.decide(base, bucket.theirs, ours, work.shape)

    def _carry_out(self, work: TableWork, bucket: Bucket, outcome: Outcome) -> None:
        self._tally.proposals += outcome.proposals
        for clash in outcome.clashes:
            theirs, held = self._terms.source.node, "ours"
            kept, lost = (held, theirs) if self._terms.ours_stays else (theirs, held)
            self._lost.append(Lost(work.table.name, bucket.key, clash.kept, clash.lost, kept, lost))
        # Deletions first: what comes in may carry the origin of what goes.
        for change in sorted(outcome.changes, key=lambda change: change.action is not Action.DELETE):
            self._change(work, bucket, change)

    def _without_set_aside(self, work: TableWork, bucket: Bucket, ours: Sequence[Row]) -> Sequence[Row]:
        """Return base without rows that never came in here: that ours lacks them is no deletion of ours."""
        aside = [row for row in bucket.base if self._terms.journal.holds_row(row_payload(work.table.name, row.values))]
        lacking = {id(row) for row, held in edits(aside, ours, work.shape) if held is None}
        return [row for row in bucket.base if id(row) not in lacking]

    def _change(self, work: TableWork, bucket: Bucket, change: Change) -> None:
        try:
            if change.action is Action.DELETE:
                self._delete(work, bucket, change)
            elif change.ours is not None:
                self._writer.update(work.table, change.ours, change.values)
                self._tally.updated += 1
            elif change.theirs is not None:
                self._writer.insert(work.table, change.theirs)
                self._tally.inserted += 1
        except PoisonRowError as error:
            if work.table.name == "sdk_sessions" and not self._is_last:
                self._refused.append((work, bucket))
            else:
                self._set_aside(work, bucket, change, str(error))
            return
        self._tally.touched.add(work.table.name)
        if self._had_quarantine and change.theirs is not None:
            self._taken_in.append(row_payload(work.table.name, change.theirs.values))

    def _delete(self, work: TableWork, bucket: Bucket, change: Change) -> None:
        if change.ours is None:
            return
        if work.table.name == "sdk_sessions" and not self._is_last:
            self._emptied.append((work, bucket))
        elif self._writer.delete(work.table, change.ours):
            self._tally.deleted += 1
        else:
            self._tally.proposals += 1

    def _set_aside(self, work: TableWork, bucket: Bucket, change: Change, reason: str) -> None:
        name = work.table.name
        for row in [change.theirs] if change.theirs else bucket.theirs:
            subject = f"{name} {list(map(str, bucket.key))} of {self._terms.source.node}"
            self._terms.journal.quarantine("row", subject, reason, row_payload(name, row.values))
            self._tally.quarantined += 1

    def _write_journal(self) -> None:
        if self._lost:
            self._terms.journal.add_conflicts(self._lost)
            self._tally.conflicts += len(self._lost)
            self._lost.clear()
        if self._taken_in:
            self._terms.journal.resolve(self._taken_in)
            self._taken_in.clear()


def _steps(work: Sequence[TableWork]) -> Iterator[tuple[TableWork, Bucket]]:
    for one in work:
        for bucket in one.buckets:
            yield one, bucket
