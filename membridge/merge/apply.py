"""Carry out a merge on the live database, in transactions that the worker hardly notices.

What becomes of a bucket is decided under the write lock, on the rows that are there then: nothing that the worker wrote
since the comparison is overruled. Killed at any point and run again, the result is the same.

Journal and undo record are written while the lock is free, because the worker waits for no disk but its own. A
transaction that overwrites a version of which the journal does not know, or a row that is not in the undo record, is
rolled back; both are written, and it is done again.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from membridge.aio.deadline import Deadline
from membridge.claudemem import durable
from membridge.claudemem.sql import Connection
from membridge.claudemem.tables import Table
from membridge.merge.conflicts import Journal, Lost, loser_identity, row_identity, row_payload
from membridge.merge.recorder import Recorder, Save
from membridge.merge.report import MergeReport, Source
from membridge.merge.rows import Key, Reader
from membridge.merge.three_way import Action, Decision, Row, RowEdit, Shape, edits
from membridge.merge.write import PoisonRowError, RowWriter

#: Seconds of work in one transaction; with the commit the write lock is held for less than 0.2 s.
HOLD = 0.06
#: Seconds between two transactions: a worker that waits for the lock asks for it every 0.1 s at the latest.
PAUSE = 0.02
#: Buckets read ahead of a transaction.
_AHEAD = 256

Decide = Callable[[Sequence[Row], Sequence[Row], Sequence[Row], Shape], Decision]


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

    `save` is called once, before the first transaction that writes and without its lock, and gets the rows of each one;
    a merge that has nothing to write never calls it.
    """

    source: Source
    decide: Decide
    journal: Journal
    ours_stays: bool = False
    save: Save | None = None


Step = tuple[TableWork, Bucket]


@dataclass(slots=True)
class _Tally:
    """What one transaction does: counted, and what is to be journalled or done later once it is committed."""

    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    proposals: int = 0
    lost: list[Lost] = field(default_factory=list[Lost])
    set_aside: list[tuple[str, str, bytes]] = field(default_factory=list[tuple[str, str, bytes]])
    taken_in: list[bytes] = field(default_factory=list[bytes])
    #: Sessions that go, and rows that were refused: both may fit once the others are done.
    emptied: list[Step] = field(default_factory=list[Step])
    refused: list[Step] = field(default_factory=list[Step])


class Merger:
    """Carries out one merge through one connection; used once."""

    def __init__(self, connection: Connection, writer: RowWriter, terms: Terms) -> None:
        self._connection, self._writer, self._terms = connection, writer, terms
        self._tally = _Tally()
        self._report = MergeReport()
        self._emptied: list[Step] = []
        self._refused: list[Step] = []
        self._is_last = False
        self._unsaved = terms.save
        self._recorder = Recorder(connection, terms.save)
        self._journalled: set[str] = set()
        self._aside = terms.journal.rows_aside()

    def run(
        self,
        work: Sequence[TableWork],
        path: Path,
        *,
        deadline: Deadline,
        progress: Callable[[int, int], None] | None = None,
    ) -> MergeReport:
        """Merge all buckets, sessions that go last.

        `progress` gets buckets done and buckets in all after each transaction. Errors: the database's, and
        DeadlineExceededError; what was committed by then stays, and the next merge goes on from there.
        """
        total = sum(one.size for one in work)
        steps = _steps(work)
        done = 0
        if self._connection.texts("PRAGMA journal_mode") == ["wal"]:
            # The caller forces the WAL to the disk once, before anything relies on it.
            self._connection.run("PRAGMA synchronous = NORMAL")
        while ahead := list(islice(steps, _AHEAD)):
            while ahead:
                count = self._transaction(ahead, path, deadline)
                del ahead[:count]
                done += count
                if progress is not None:
                    progress(done, total)
        # Sessions that go waited until their rows were gone, others until a session that goes gave its memory id free.
        self._is_last = True
        for left in (self._emptied, self._refused):
            while left:
                del left[: self._transaction(left, path, deadline)]
        return self._report

    def _transaction(self, steps: Sequence[Step], path: Path, deadline: Deadline) -> int:
        """Do as many steps as fit into one short transaction, one at least; return how many they were."""
        while True:
            deadline.check("merging")
            count, unknown, unrecorded = self._try(steps)
            if unknown or unrecorded:
                # On the disk before the live database: a loser must not be gone because we were killed between the two.
                self._terms.journal.add_conflicts(unknown.values())
                self._journalled |= unknown.keys()
                self._recorder.record()
            elif not count and self._unsaved is not None:
                save, self._unsaved = self._unsaved, None
                save()
            else:
                break
        self._recorder.committed()
        self._committed(path)
        if count < len(steps):
            time.sleep(PAUSE)
        return count

    def _try(self, steps: Sequence[Step]) -> tuple[int, dict[str, Lost], bool]:
        """Do one transaction; return its steps, the losers that the journal lacks, and if the undo record lacks rows.

        It was rolled back if anything was lacking.
        """
        self._tally = _Tally()
        count = 0
        try:
            self._recorder.begin()
            began = time.monotonic()
            for work, bucket in steps:
                decision = self._decide(work, bucket)
                if decision.changes and self._unsaved is not None:
                    break
                self._carry_out(work, bucket, decision)
                count += 1
                if time.monotonic() - began > HOLD:
                    break
            losers = {loser_identity(lost): lost for lost in self._tally.lost}
            unknown = {name: lost for name, lost in losers.items() if name not in self._journalled}
            unrecorded = self._recorder.lacks()
            self._connection.run("ROLLBACK" if unknown or unrecorded else "COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.run("ROLLBACK")
            raise
        return count, unknown, unrecorded

    def _committed(self, path: Path) -> None:
        """Take a committed transaction into account. Killed before, the next merge finds the same rows refused."""
        tally, report, journal = self._tally, self._report, self._terms.journal
        self._report = MergeReport(
            inserted=report.inserted + tally.inserted,
            updated=report.updated + tally.updated,
            deleted=report.deleted + tally.deleted,
            conflicts=report.conflicts + len(tally.lost),
            quarantined=report.quarantined + len(tally.set_aside),
            unsynced=report.unsynced + tally.proposals,
        )
        self._emptied += tally.emptied
        self._refused += tally.refused
        if tally.set_aside:
            journal.quarantine_rows(tally.set_aside)
            self._aside.update(row_identity(payload) for _, _, payload in tally.set_aside)
        if tally.taken_in:
            # Forgotten too early, a row that a power cut takes back would look as if a user had deleted it.
            durable.force(path)
            journal.resolve(tally.taken_in)
            self._aside.difference_update(map(row_identity, tally.taken_in))

    def _decide(self, work: TableWork, bucket: Bucket) -> Decision:
        ours = Reader(self._connection, work.table).bucket(bucket.key)
        base = self._without_set_aside(work, bucket, ours) if self._aside else bucket.base
        return self._terms.decide(base, bucket.theirs, ours, work.shape)

    def _carry_out(self, work: TableWork, bucket: Bucket, decision: Decision) -> None:
        self._tally.proposals += decision.proposals
        for clash in decision.clashes:
            theirs, held = self._terms.source.node, "ours"
            kept, lost = (held, theirs) if self._terms.ours_stays else (theirs, held)
            self._tally.lost.append(Lost(work.table.name, bucket.key, clash.kept, clash.lost, kept, lost))
        # Deletions first: what comes in may carry the origin of what goes.
        for edit in sorted(decision.changes, key=lambda edit: edit.action is not Action.DELETE):
            self._carry_out_edit(work, bucket, edit)

    def _without_set_aside(self, work: TableWork, bucket: Bucket, ours: Sequence[Row]) -> Sequence[Row]:
        """Return base without rows that never came in here: that ours lacks them is no deletion of ours."""
        aside = [row for row in bucket.base if self._holds(row_payload(work.table.name, row.values))]
        lacking = {id(row) for row, held in edits(aside, ours, work.shape) if held is None}
        return [row for row in bucket.base if id(row) not in lacking]

    def _carry_out_edit(self, work: TableWork, bucket: Bucket, edit: RowEdit) -> None:
        try:
            if edit.action is Action.DELETE:
                self._delete(work, bucket, edit)
            elif edit.ours is not None:
                self._writer.update(work.table, edit.ours, edit.values)
                self._tally.updated += 1
            elif edit.theirs is not None:
                self._writer.insert(work.table, edit.theirs)
                self._tally.inserted += 1
        except PoisonRowError as error:
            if work.table.name == "sdk_sessions" and not self._is_last:
                self._tally.refused.append((work, bucket))
            else:
                self._set_aside(work, bucket, edit, str(error))
            return
        if edit.theirs is not None and self._holds(payload := row_payload(work.table.name, edit.theirs.values)):
            self._tally.taken_in.append(payload)

    def _holds(self, payload: bytes) -> bool:
        return bool(self._aside) and row_identity(payload) in self._aside

    def _delete(self, work: TableWork, bucket: Bucket, edit: RowEdit) -> None:
        if edit.ours is None:
            return
        if work.table.name == "sdk_sessions" and not self._is_last:
            self._tally.emptied.append((work, bucket))
        elif self._writer.delete(work.table, edit.ours):
            self._tally.deleted += 1
        else:
            self._tally.proposals += 1

    def _set_aside(self, work: TableWork, bucket: Bucket, edit: RowEdit, reason: str) -> None:
        name = work.table.name
        for row in [edit.theirs] if edit.theirs else bucket.theirs:
            subject = f"{name} {list(map(str, bucket.key))} of {self._terms.source.node}"
            self._tally.set_aside.append((subject, reason, row_payload(name, row.values)))


def _steps(work: Sequence[TableWork]) -> Iterator[Step]:
    for one in work:
        for bucket in one.buckets:
            yield one, bucket
