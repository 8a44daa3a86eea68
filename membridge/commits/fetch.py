"""Bring a mirror to the head: download missing objects, rebuild the file beside the old one, verify it.

The old mirror and its position stay unchanged; the caller merges first, then advances the position.
"""

from dataclasses import dataclass
from pathlib import Path

from membridge.aio import threads
from membridge.aio.deadline import Deadline
from membridge.claudemem import database
from membridge.commits import chain, heads, pruned, rebuild
from membridge.commits.chain import FetchPlan, Position
from membridge.commits.progress import ProgressTracker
from membridge.commits.replica import Replica
from membridge.errors import CorruptObjectError, ObjectMissingError
from membridge.system import files
from schemas.snapshot import SnapshotRecord

#: What helps when the store has lost a part of the newest snapshot.
_RECOVER = "on the primary run `membridge recover --from mirror`"


@dataclass(frozen=True, slots=True)
class Fetched:
    """The new mirror, adopted but not yet current. `base` is the old one when the new one descends from it."""

    path: Path
    position: Position
    base: Path | None
    downloaded_bytes: int


async def fetch(replica: Replica, head: SnapshotRecord, *, progress: ProgressTracker, deadline: Deadline) -> Fetched:
    """Build the database file of `head` in the mirror's folder and return it, verified.

    A mirror that disagrees with its position is rebuilt from the full snapshot and cannot be the base of a merge.
    Errors: CorruptObjectError when an object or the result is not what its record says, ObjectMissingError when the
    chain names an object that is gone; the mirror is then as before.
    """
    position = replica.mirror.position()
    if position is not None:
        plan = await _plan(replica, head, position, deadline=deadline)
        if plan is not None:
            try:
                return await _build(replica, head, plan, progress=progress, deadline=deadline)
            except CorruptObjectError:
                # Either the mirror or an object is damaged: rebuilding from the full snapshot shows which.
                if plan.from_full:
                    raise
    plan = await _plan(replica, head, None, deadline=deadline)
    if plan is None:
        raise CorruptObjectError(f"snapshots of {replica.name} are missing from the store", remedy=_RECOVER)
    return await _build(replica, head, plan, progress=progress, deadline=deadline)


async def _plan(
    replica: Replica, head: SnapshotRecord, position: Position | None, *, deadline: Deadline
) -> FetchPlan | None:
    try:
        seqs = [seq for seq in chain.records_needed(head, position) if seq != head.seq]
        records = await heads.fetch_records(replica, seqs, deadline=deadline) | {head.seq: head}
        gone: Position | None = None
        if position is not None and position.seq < head.full_seq and position.seq not in records:
            # The node was offline while retention ran: its mirror is still the base of its merge.
            gone = await pruned.find(replica, position.seq, deadline=deadline)
        plan = chain.plan(head, position, records, gone)
    except chain.BrokenChainError as error:
        raise CorruptObjectError(
            f"the snapshots of {replica.name} do not build on each other: {error}", remedy=_RECOVER
        ) from error
    if plan is not None and plan.from_full and plan.descends and not await threads.run(_is_intact, replica, position):
        return None
    return plan


async def _build(
    replica: Replica, head: SnapshotRecord, plan: FetchPlan, *, progress: ProgressTracker, deadline: Deadline
) -> Fetched:
    mirror, target = replica.mirror, Position(head.seq, head.epoch, head.sha256)
    base = mirror.path() if plan.descends else None
    if base is not None and all(record.object is None for record in plan.commits):
        return Fetched(base, target, base, 0)
    staged = await threads.run(mirror.stage)
    work = staged.with_name("objects.part")
    await threads.run(files.fresh_folder, work)
    try:
        if base is not None and not plan.from_full:
            await threads.run(files.copy, base, staged)
        try:
            downloaded = await rebuild.rebuild(
                replica, plan.commits, staged, work, progress=progress, deadline=deadline
            )
        except (CorruptObjectError, ObjectMissingError) as error:
            if error.remedy == error.default_remedy:
                error.remedy = _RECOVER
            raise
        with progress.step("verify"):
            await threads.run(_verify, staged, head, plan, deadline)
        return Fetched(await threads.run(mirror.adopt, staged, target), target, base, downloaded)
    finally:
        await threads.run(files.discard, work)


def _verify(staged: Path, head: SnapshotRecord, plan: FetchPlan, deadline: Deadline) -> None:
    if staged.stat().st_size != head.page_size * head.page_count or files.sha256_of(staged) != head.sha256:
        raise CorruptObjectError(
            f"the database built from snapshot {head.seq} is not the committed one: its sha256 differs"
        )
    # The committing node ran a full check. After a delta only the pages that a merge reads are checked again.
    if plan.from_full:
        database.quick_check(staged, deadline=deadline)
    else:
        database.check_memory(staged, deadline=deadline)


def _is_intact(replica: Replica, position: Position | None) -> bool:
    """Whether the mirror's file matches its position. No delta is applied to it, so nothing else would notice."""
    path = replica.mirror.path()
    return path is not None and position is not None and files.sha256_of(path) == position.sha256
