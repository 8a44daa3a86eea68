"""Verify that every kept record and object exists, is whole and linked, and that each chain rebuilds its databases.

Reads only. Works in a temporary folder that holds one database and one object at a time and is removed at the end.
A commit that retention deletes meanwhile is not a finding.
"""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from membridge.aio import tasks, threads
from membridge.aio.deadline import Deadline
from membridge.claudemem import database
from membridge.claudemem.connection import MEMORY_SUFFIX
from membridge.commits import chain, heads, layout, rebuild
from membridge.commits.chain import Step
from membridge.commits.progress import ProgressTracker
from membridge.commits.rebuild import Rebuilt
from membridge.commits.replica import Replica
from membridge.commits.temp_dir import check_room, temp_dir
from membridge.errors import (
    CorruptObjectError,
    DatabaseInvalidError,
    NotFoundError,
    ObjectMissingError,
)
from membridge.merge import install, row_rollup
from membridge.merge.memory_file import OtherMemoryError
from membridge.merge.report import Source
from membridge.merge.row_stream import MalformedStreamError, decode
from membridge.system import files
from schemas.commits import VerifyFinding, VerifyReply, VerifyRequest
from schemas.identity import Seq
from schemas.node import Finding
from schemas.snapshot import SnapshotKind, SnapshotObject, SnapshotRecord

#: Findings of one answer; more of them say nothing new.
MOST_FINDINGS = 200
#: Records and objects looked at at once.
READERS = 8

_RESTORE = "if the newest snapshot is damaged: `membridge recover --from mirror` on the primary makes a whole one"

_STEPS_OVER = "the next push takes the number after it"


async def verify(
    replica: Replica, request: VerifyRequest, *, progress: ProgressTracker, deadline: Deadline
) -> VerifyReply:
    """Return the findings. Errors: NotFoundError, DiskFullError, the store's and the bus' errors."""
    async with temp_dir(replica) as folder:
        return await _Verification(replica, progress, deadline, folder).run(request)


@dataclass(slots=True)
class _Counts:
    objects: int = 0
    restored: int = 0
    read_objects: int = 0
    read_bytes: int = 0


@dataclass(slots=True)
class _Verification:
    """One run, in a temporary folder: its findings and counts."""

    replica: Replica
    progress: ProgressTracker
    deadline: Deadline
    folder: Path
    findings: list[VerifyFinding] = field(default_factory=list[VerifyFinding])
    counts: _Counts = field(default_factory=_Counts)
    #: Commits that have a finding of their own; what builds on them is not restored either.
    damaged: set[Seq] = field(default_factory=set[Seq])

    async def run(self, request: VerifyRequest) -> VerifyReply:
        with self.progress.step("records"):
            head, records = await self._records()
        if request.seq is not None:
            records = self._chain_of(records, request.seq)
            first = min(records)
            last = head.seq if head else request.seq
            wanted = range(first, request.seq + 1)
            self.findings = [one for one in self.findings if one.seq in wanted or one.seq > last or one.what == "head"]
        broken = self._check_links(records)
        with self.progress.step("objects"):
            await self._check_objects(records.values())
        if request.sample is None:
            await self._restore(_chains(records), broken)
        else:
            await self._read_some(records.values(), request.sample)
        findings = await self._still_true()
        return VerifyReply(
            findings=findings[:MOST_FINDINGS],
            truncated=len(findings) > MOST_FINDINGS,
            head_seq=head.seq if head else 0,
            records=len(records),
            chains=len(_chains(records)),
            restored=self.counts.restored,
            objects=self.counts.objects,
            read_objects=self.counts.read_objects,
            read_bytes=self.counts.read_bytes,
        )

    async def _records(self) -> tuple[SnapshotRecord | None, dict[Seq, SnapshotRecord]]:
        """Return the head and every record that can be read, by seq, the head's among them."""
        known = await heads.read(self.replica, deadline=self.deadline)
        records: dict[Seq, SnapshotRecord] = {}
        damaged: dict[Seq, str] = {}

        async def one(seq: Seq) -> None:
            try:
                records[seq] = await heads.fetch_record(self.replica, seq, deadline=self.deadline)
            except ObjectMissingError:
                return  # retention was quicker
            except CorruptObjectError as error:
                damaged[seq] = error.message

        await tasks.each(await heads.seqs(self.replica, deadline=self.deadline), one, at_once=READERS)
        self._check_readable(damaged, known.record.seq if known else 0, records)
        if known is None:
            return None, records
        self._check_head(known, records)
        records.setdefault(known.record.seq, known.record)
        return known.record, dict(sorted(records.items()))

    def _check_readable(self, damaged: dict[Seq, str], head: Seq, records: dict[Seq, SnapshotRecord]) -> None:
        stepped_over = chain.stepped_over(records.values())
        for seq, detail in damaged.items():
            if seq in stepped_over:
                self._found(
                    Finding.WARN, seq, "record", f"{detail}; no commit builds on it", "`membridge gc` deletes it"
                )
            elif 0 < head < seq:
                self._found(Finding.WARN, seq, "record", f"{detail}; it never became the head", _STEPS_OVER)
            else:
                self._failed(seq, "record", detail, _RESTORE)

    def _check_head(self, known: heads.KnownHead, records: dict[Seq, SnapshotRecord]) -> None:
        head, settles = known.record, "the next push settles it"
        if known.revision == 0:
            self._found(Finding.WARN, head.seq, "head", "NATS does not know the head, the object store does", settles)
        stored = records.get(head.seq)
        if stored is None:
            self._failed(head.seq, "head", "the object store has no record of the head", _RESTORE)
        elif stored.nonce != head.nonce:
            self._failed(head.seq, "head", "NATS and the object store name different heads", _RESTORE)
        for seq in [seq for seq in records if seq > head.seq]:
            self._found(Finding.WARN, seq, "head", "this record is newer than the head", settles)
            del records[seq]

    def _chain_of(self, records: dict[Seq, SnapshotRecord], seq: Seq) -> dict[Seq, SnapshotRecord]:
        chosen = records.get(seq)
        if chosen is None:
            raise NotFoundError(
                f"{self.replica.name} has no snapshot {seq}, or not any more", remedy="run `membridge history`"
            )
        return {number: record for number, record in records.items() if chosen.full_seq <= number <= seq}

    def _check_links(self, records: dict[Seq, SnapshotRecord]) -> set[Seq]:
        """Compare each record with those that it builds on; return the ones that no sound step leads to."""
        broken: set[Seq] = set()
        for seq, record in records.items():
            wrong = self._flaw(record, records)
            if wrong:
                self._failed(seq, "chain", wrong, _RESTORE)
                self.damaged.add(seq)
            starts = {record.parent_seq, *(rollup.after_seq for rollup in record.rollups)} & (records.keys() - broken)
            if record.kind is not SnapshotKind.FULL and (wrong or not starts):
                broken.add(seq)
        return broken

    def _flaw(self, record: SnapshotRecord, records: dict[Seq, SnapshotRecord]) -> str:
        prefix = layout.snapshots(self.replica.project)
        if not all(stored.key.startswith(prefix) for stored in record.objects()):
            return "its object is not the project's"
        return chain.flaw(record, records)

    async def _check_objects(self, records: Iterable[SnapshotRecord]) -> None:
        wanted = [(record.seq, stored) for record in records for stored in record.objects()]
        self.counts.objects += len(wanted)
        listing = self.replica.store.list(layout.snapshots(self.replica.project), deadline=self.deadline)
        sizes = {info.key: info.size_bytes async for info in listing} if wanted else {}
        for seq, stored in wanted:
            size = sizes.get(stored.key)
            if size is None:
                self._failed(seq, "object", f"{stored.key} is missing", _RESTORE)
            elif size != stored.size_bytes:
                detail = f"{stored.key} has {size} bytes instead of {stored.size_bytes}"
                self._failed(seq, "object", detail, _RESTORE)

    async def _read_some(self, records: Iterable[SnapshotRecord], count: int) -> None:
        there = [(record.seq, stored) for record in records for stored in record.objects()]
        chosen = random.SystemRandom().sample(there, min(count, len(there)))
        with self.progress.step("read"):
            for done, (seq, stored) in enumerate(chosen):
                self.progress.advance(done, len(chosen))
                path = await self._fetch(seq, stored)
                if path is not None:
                    await threads.run(path.unlink)

    async def _restore(self, chains: list[list[SnapshotRecord]], broken: set[Seq]) -> None:
        total, done = sum(map(len, chains)), 0
        with self.progress.step("restore"):
            for one in chains:
                await self._restore_chain(one, broken, done, total)
                done += len(one)
                self.progress.advance(done, total)

    async def _restore_chain(self, commits: list[SnapshotRecord], broken: set[Seq], done: int, total: int) -> None:
        """Build every state of a chain, one after the other, and check the objects that are not needed for that.

        A state that no step leads to from the one before it is built from the full snapshot.
        """
        sound = {record.seq: record for record in commits if record.seq not in broken}
        lost, culprit = dict[Seq, list[Seq]](), 0
        path = self.folder / f"state{MEMORY_SUFFIX}"
        state = _State(path, Rebuilt(path, deadline=self.deadline))
        try:
            for place, record in enumerate(commits):
                self.progress.advance(done + place, total)
                steps = chain.steps_from(record, state.at, sound) if record.seq in sound else None
                if steps is not None and await self._build(steps, state):
                    self.counts.restored += 1
                    await self._check_others(record, steps[-1].object)
                    continue
                if steps is not None:
                    self.damaged.add(record.seq)
                    del sound[record.seq]
                if record.seq in self.damaged:
                    culprit = record.seq
                else:
                    lost.setdefault(culprit, []).append(record.seq)
            await threads.run(state.rebuilt.finish)
        finally:
            await threads.run(state.rebuilt.close)
        for seq, rest in lost.items():
            detail = f"seq {rest[0]} to {rest[-1]} cannot be restored: they build on seq {seq}"
            self._failed(rest[0], "chain", detail, _RESTORE)
        if state.at is not None:
            await self._check_database(sound[state.at], state.path)

    async def _build(self, steps: Sequence[Step], state: "_State") -> bool:
        for step in steps:
            if not await self._take(step, state.rebuilt):
                state.at = None
                return False
            state.at = step.record.seq
        return True

    async def _take(self, step: Step, rebuilt: Rebuilt) -> bool:
        record, stored = step.record, step.object
        if stored is not None:
            await threads.run(check_room, self.folder, record)
            path = await self._fetch(record.seq, stored)
            if path is None:
                return False
            try:
                await threads.run(rebuilt.add, record, path)
                if record.kind is SnapshotKind.FULL:
                    # A delta's rows are added up when it is taken in, an image's are not.
                    await threads.run(rebuilt.check)
            except (CorruptObjectError, DatabaseInvalidError) as error:
                self._failed(record.seq, "restore", error.message, _RESTORE)
                return False
            except OtherMemoryError:
                self._failed(record.seq, "restore", "its rows are not those whose sums it names", _RESTORE)
                return False
            finally:
                await threads.run(path.unlink, missing_ok=True)
        elif await threads.run(rebuilt.digest) != record.sha256:
            self._failed(record.seq, "restore", "it names another state than its parent", _RESTORE)
            return False
        return True

    async def _check_others(self, record: SnapshotRecord, used: SnapshotObject | None) -> None:
        """Check that the objects of a commit that its state was not built of lead to the same state."""
        starts = {rollup.object.key: rollup.after_sha256 for rollup in record.rollups}
        for stored in record.objects():
            before = starts.get(stored.key, record.parent_sha256)
            if stored is used or before is None or record.kind is SnapshotKind.FULL:
                continue
            path = await self._fetch(record.seq, stored)
            if path is None:
                continue
            try:
                await threads.run(_check_sums, path, before, record.sha256)
            except MalformedStreamError as error:
                self._failed(record.seq, "object", f"{stored.key} cannot be used: {error}", _RESTORE)
            finally:
                await threads.run(path.unlink, missing_ok=True)

    async def _fetch(self, seq: Seq, stored: SnapshotObject) -> Path | None:
        """Download and check an object of a commit; damage becomes a finding."""
        try:
            await rebuild.download(self.replica, [stored], self.folder, deadline=self.deadline)
        except ObjectMissingError:
            return None  # known since the objects were looked at
        except CorruptObjectError as error:
            self._failed(seq, "object", error.message, _RESTORE)
            return None
        self.counts.read_objects += 1
        self.counts.read_bytes += stored.size_bytes
        return self.folder / stored.sha256

    async def _check_database(self, record: SnapshotRecord, state: Path) -> None:
        """Build the database that claude-mem would open, and let SQLite check it."""
        target = self.folder / "built.db"
        source = Source(node=record.node, device_id=record.device_id)
        try:
            await threads.run(install.build_from, state, target, source=source, deadline=self.deadline)
            await threads.run(database.quick_check, target, deadline=self.deadline)
        except (DatabaseInvalidError, CorruptObjectError) as error:
            self._failed(record.seq, "database", error.message.replace(str(target), "of this snapshot"), _RESTORE)
        finally:
            await threads.run(files.remove, target)

    async def _still_true(self) -> list[VerifyFinding]:
        """Return the findings, worst first, without those of commits that retention deleted meanwhile."""
        if not self.findings:
            return []
        there = set(await heads.seqs(self.replica, deadline=self.deadline))
        head = {finding.seq for finding in self.findings if finding.what == "head"}
        found = [one for one in self.findings if one.seq in there or one.seq in head]
        return sorted(found, key=lambda one: (one.finding is not Finding.FAIL, one.seq))

    def _failed(self, seq: Seq, what: str, detail: str, remedy: str) -> None:
        self._found(Finding.FAIL, seq, what, detail, remedy)

    def _found(self, finding: Finding, seq: Seq, what: str, detail: str, remedy: str) -> None:
        self.findings.append(VerifyFinding(finding=finding, seq=seq, what=what, detail=detail, remedy=remedy))


@dataclass(slots=True)
class _State:
    """A memory file that is built from state to state; `at` is the commit whose state it holds, None before that."""

    path: Path
    rebuilt: Rebuilt
    at: Seq | None = None


def _check_sums(path: Path, before: str, after: str) -> None:
    with files.translated(path):
        row_rollup.check(decode(rebuild.chunks_of(path)), before, after)


def _chains(records: dict[Seq, SnapshotRecord]) -> list[list[SnapshotRecord]]:
    found: dict[Seq, list[SnapshotRecord]] = {}
    for _, record in sorted(records.items()):
        found.setdefault(record.full_seq, []).append(record)
    return list(found.values())
