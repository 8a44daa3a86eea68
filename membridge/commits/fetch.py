"""Fetch what brings a mirror to the head: the deltas and rollups since, or the whole state beside the old mirror.

The mirror and its position stay unchanged; the caller merges first, then moves the mirror on.
"""

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from membridge.aio import threads
from membridge.aio.deadline import Deadline
from membridge.commits import chain, heads, pruned, rebuild
from membridge.commits.chain import FetchPlan, Position
from membridge.commits.mirror import encoded
from membridge.commits.progress import ProgressTracker
from membridge.commits.replica import Replica
from membridge.errors import CorruptObjectError, DatabaseInvalidError, ObjectMissingError
from membridge.merge.memory_file import MemoryFile, OtherMemoryError
from membridge.merge.rows import Key
from membridge.system import files
from membridge.system.logging import get_logger
from schemas.identity import Seq
from schemas.snapshot import SnapshotRecord

log = get_logger("membridge.commits")

#: What helps when the store has lost a part of the newest snapshot.
_RECOVER = "on the primary run `membridge recover --from mirror`"


@dataclass(frozen=True, slots=True)
class Fetched:
    """What leads to `position`: a staged memory file, or deltas that the mirror takes in, oldest first.

    `base` is the mirror when the new state descends from it.
    """

    position: Position
    base: Path | None
    downloaded_bytes: int
    staged: Path | None = None
    deltas: tuple[tuple[SnapshotRecord, Path], ...] = ()


async def fetch(
    replica: Replica,
    head: SnapshotRecord,
    *,
    anew: bool = False,
    whole: bool = False,
    progress: ProgressTracker,
    deadline: Deadline,
) -> Fetched:
    """Fetch what brings the mirror to `head`, verified; `anew` when the mirror cannot be relied on.

    No deltas if `whole`: the result is a staged file, unless the mirror itself is the state of `head`. A mirror that
    disagrees with its position is no base of a merge. Errors: CorruptObjectError when an object is not what its record
    says, ObjectMissingError when the chain names an object that is gone; the mirror is then as before.
    """
    position = None if anew else replica.mirror.position()
    plan = await _plan(replica, head, position, whole=whole, deadline=deadline)
    try:
        return await _fetched(replica, head, plan, progress=progress, deadline=deadline)
    except (CorruptObjectError, ObjectMissingError) as error:
        if error.remedy == error.default_remedy:
            error.remedy = _RECOVER
        if all(step.object is step.record.object for step in plan.steps):
            raise
        log.warning("rollup cannot be used, deltas are read instead", project=replica.name, reason=error.message)
        try:
            plan = await _plan(replica, head, position, whole=whole, rollups=False, deadline=deadline)
            return await _fetched(replica, head, plan, progress=progress, deadline=deadline)
        except (CorruptObjectError, ObjectMissingError):
            raise error from None


def take(replica: Replica, fetched: Fetched, *, deadline: Deadline) -> None:
    """Make what was fetched the mirror. Blocking. Errors: CorruptObjectError, the mirror's."""
    path = replica.mirror.path()
    if fetched.staged is not None:
        replica.mirror.adopt(fetched.staged, fetched.position)
    elif path is not None:
        with closing(MemoryFile(path, deadline=deadline)) as memory:
            memory.begin()
            keys_of(fetched, memory)
            memory.commit(encoded(fetched.position))
        replica.mirror.advance(fetched.position)


def keys_of(fetched: Fetched, memory: MemoryFile) -> dict[str, set[Key]]:
    """Take deltas into the mirror's transaction, which the caller ends; return the keys of their rows. Blocking."""
    keys: dict[str, set[Key]] = {}
    for record, path in fetched.deltas:
        for name, some in rebuild.apply(record, path, memory).items():
            keys.setdefault(name, set()).update(some)
    return keys


def work_folder(replica: Replica) -> Path:
    """Return where fetched objects lie until they are taken in."""
    return replica.mirror.directory / "objects.part"


async def _plan(
    replica: Replica,
    head: SnapshotRecord,
    position: Position | None,
    *,
    whole: bool,
    rollups: bool = True,
    deadline: Deadline,
) -> FetchPlan:
    plan = await _plan_from(replica, head, position, rollups=rollups, deadline=deadline)
    if plan is None or (whole and not plan.from_full and any(step.object for step in plan.steps)):
        plan = await _plan_from(replica, head, None, rollups=rollups, deadline=deadline)
    if plan is None:
        raise CorruptObjectError(f"snapshots of {replica.name} are missing from the store", remedy=_RECOVER)
    return plan


async def _plan_from(
    replica: Replica, head: SnapshotRecord, position: Position | None, *, rollups: bool, deadline: Deadline
) -> FetchPlan | None:
    try:
        records, gone = await _records(replica, head, position, rollups=rollups, deadline=deadline)
        plan = chain.plan(head, position, records, gone, rollups=rollups)
    except chain.BrokenChainError as error:
        raise CorruptObjectError(
            f"the snapshots of {replica.name} do not build on each other: {error}", remedy=_RECOVER
        ) from error
    if plan is not None and plan.from_full and plan.descends and not await threads.run(_is_whole, replica, deadline):
        return None
    return plan


async def _records(
    replica: Replica, head: SnapshotRecord, position: Position | None, *, rollups: bool, deadline: Deadline
) -> tuple[dict[Seq, SnapshotRecord], Position | None]:
    """Return the records that a plan from `position` needs, and the tombstone of its commit if that is pruned."""
    records, gone = dict[Seq, SnapshotRecord](), None
    if position is not None and head.full_seq <= position.seq <= head.seq:
        records = await heads.lineage(replica, head, position.seq, rollups=rollups, deadline=deadline)
        if chain.descent(head, position.seq, records, rollups=rollups).begins.seq == position.seq:
            return records, None
    if position is not None and position.seq <= head.seq:
        records |= await heads.fetch_records(replica, {position.seq} - records.keys(), deadline=deadline)
        # The node was offline while retention ran: its mirror is still the base of its merge.
        gone = await pruned.find(replica, position.seq, deadline=deadline)
    return records | await heads.lineage(replica, head, head.full_seq, rollups=rollups, deadline=deadline), gone


async def _fetched(
    replica: Replica, head: SnapshotRecord, plan: FetchPlan, *, progress: ProgressTracker, deadline: Deadline
) -> Fetched:
    mirror, target = replica.mirror, Position(head.seq, head.epoch, head.sha256)
    base = await threads.run(mirror.path) if plan.descends else None
    staged = await threads.run(mirror.stage)
    work = work_folder(replica)
    await threads.run(files.fresh_folder, work)
    if plan.from_full:
        done = await rebuild.rebuild(replica, plan.steps, staged, work, progress=progress, deadline=deadline)
        return Fetched(target, base, done, staged=staged)
    stored = [(step.record, step.object) for step in plan.steps if step.object is not None]
    with progress.step("download"):
        await rebuild.download(replica, [one for _, one in stored], work, deadline=deadline)
    deltas = tuple((record, work / one.sha256) for record, one in stored)
    return Fetched(target, base, sum(one.size_bytes for _, one in stored), deltas=deltas)


def _is_whole(replica: Replica, deadline: Deadline) -> bool:
    """Whether the mirror holds its rows. No delta is taken into it, so nothing else would notice."""
    path = replica.mirror.path()
    if path is None:
        return False
    try:
        with closing(MemoryFile(path, deadline=deadline)) as memory:
            memory.check()
    except (OtherMemoryError, DatabaseInvalidError):
        return False
    return True
