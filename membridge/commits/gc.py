"""Garbage: snapshots that the policy no longer keeps, and objects that no record names.

Killed between any two deletions, every record that is left can still be restored: all records go before their objects,
and a later commit before the one it builds on. An object is garbage for certain when no record names it and its seq is
not beyond a head that was read *before* the records were listed: whatever push uploaded it, its seq is taken, so it can
never commit. No clock takes part in that.

What it costs: one listing of the project, a read of each record that is there, and a deletion of each object that goes.
Since commits between two that are kept go too, few are there the next time.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from membridge.aio import tasks
from membridge.aio.deadline import Deadline
from membridge.commits import chain, heads, layout, pruned, retention, tags
from membridge.commits.heads import KnownHead
from membridge.commits.progress import ProgressTracker
from membridge.commits.replica import Replica
from membridge.errors import CorruptObjectError, ObjectMissingError, ObjectNotEncryptedError, RefusedError
from membridge.objectstore.protocol import ObjectInfo
from membridge.system import clock
from membridge.system.logging import get_logger
from schemas.commits import GcReply
from schemas.identity import Seq
from schemas.snapshot import SnapshotRecord
from schemas.streams import PROPOSALS

log = get_logger("membridge.snapshot")

#: Seconds after which an object that no record names goes from a store that does not fence commits, and by which a
#: proposal must be older than any announcement of it.
UNFENCED_AGE, PROPOSAL_AGE = 2 * retention.DAY, PROPOSALS.max_age + retention.WEEK
#: Records read at once.
READERS = 8
#: Objects deleted at once.
DELETERS = 8
#: Seqs named in an answer.
NAMED = 1000


@dataclass(slots=True)
class _Plan:
    """Commits to delete, newest first, and garbage objects."""

    head: SnapshotRecord
    stays: set[Seq]
    #: What is left of the records that can be read.
    left: set[Seq]
    going: dict[Seq, SnapshotRecord]
    #: Records of pushes that came ages too late; nothing builds on them.
    strays: dict[Seq, SnapshotRecord]
    #: Numbers of records that cannot be read and that nothing which is kept could build on.
    unreadable: list[Seq]
    #: Numbers that commits skipped.
    stepped_over: set[Seq]
    orphans: list[ObjectInfo] = field(default_factory=list[ObjectInfo])
    proposals: list[ObjectInfo] = field(default_factory=list[ObjectInfo])

    def reply(self, *, dry_run: bool) -> GcReply:
        gone = self.going | self.strays
        stored = [one.size_bytes for record in gone.values() for one in record.objects()]
        garbage = [*self.orphans, *self.proposals]
        return GcReply(
            dry_run=dry_run,
            head_seq=self.head.seq,
            kept=len(self.stays),
            snapshots=len(gone),
            orphans=len(self.orphans) + len(self.unreadable),
            proposals=len(self.proposals),
            freed_bytes=sum(stored) + sum(info.size_bytes for info in garbage),
            seqs=sorted(gone)[:NAMED],
        )


async def collect(replica: Replica, *, dry_run: bool, progress: ProgressTracker, deadline: Deadline) -> GcReply:
    """Delete what is not kept; return what went, or would go. The caller holds the push lock, so that no tag is set.

    Errors: RefusedError or CorruptObjectError, with nothing deleted, when the head's chain or a tag is damaged: then
    nothing tells what is needed. The store's and the bus' errors; the next run goes on.
    """
    with progress.step("records"):
        # Reading settles nothing: a dry run only looks.
        known = await (heads.read if dry_run else heads.settle)(replica, deadline=deadline)
        if known is None:
            return GcReply(dry_run=dry_run)
        plan = await _plan(replica, known, deadline=deadline)
    if not dry_run:
        await _carry_out(replica, plan, progress=progress, deadline=deadline)
    return plan.reply(dry_run=dry_run)


async def _plan(replica: Replica, known: KnownHead, *, deadline: Deadline) -> _Plan:
    head, project = known.record, replica.project
    # After the head was read, see above.
    there = await _listed(replica, deadline=deadline)
    objects, offered = there[layout.snapshots(project)], there[layout.proposals(project)]
    seqs = [seq for info in there[layout.commits(project)] if (seq := layout.seq_of_commit(info.key)) is not None]
    records, damaged = await _records(replica, head, seqs, deadline=deadline)
    past = await pruned.read(replica, records, deadline=deadline)
    strays = {
        seq: record
        for seq, record in records.items()
        if seq in past and (past[seq].epoch, past[seq].sha256) != (record.epoch, record.sha256)
    }
    sound = {seq: record for seq, record in records.items() if seq not in strays}
    tagged = {tag.seq for tag in await tags.listed(replica, deadline=deadline)}
    stays = retention.kept(sound, tagged, replica.retention)
    needed = retention.needed(sound, stays, replica.retention)
    going = {seq: sound[seq] for seq in sorted(sound, reverse=True) if seq not in needed}
    # One among those that are kept stays with its object, for who can mend it.
    stepped_over, oldest = chain.stepped_over(records.values()), min(needed, default=0)
    unreadable = sorted(seq for seq in damaged if seq in stepped_over or (seq < oldest and seq not in tagged))
    spared = damaged - set(unreadable)
    plan = _Plan(head, stays, needed, going, strays, unreadable, stepped_over)
    named = {one.key for record in records.values() for one in record.objects()}
    fenced = (await replica.store.describe(deadline=deadline)).conditional_put
    present = _present([*objects, *offered])
    plan.orphans = [
        info
        for info in objects
        if info.key not in named
        and (layout.seq_of_snapshot(info.key) or head.seq + 1) <= head.seq
        and layout.seq_of_snapshot(info.key) not in spared
        and (fenced or _older(info, present, UNFENCED_AGE))
    ]
    plan.proposals = [info for info in offered if _older(info, present, PROPOSAL_AGE)]
    return plan


async def _listed(replica: Replica, *, deadline: Deadline) -> dict[str, list[ObjectInfo]]:
    """Return what the project has by its folders, from one listing: the default store reads its whole index for one."""
    project = replica.project
    found: dict[str, list[ObjectInfo]] = {
        folder: [] for folder in (layout.snapshots(project), layout.proposals(project), layout.commits(project))
    }
    async for info in replica.store.list(layout.project(project), deadline=deadline):
        for folder, infos in found.items():
            if info.key.startswith(folder):
                infos.append(info)
    return found


async def _records(
    replica: Replica, head: SnapshotRecord, seqs: Iterable[Seq], *, deadline: Deadline
) -> tuple[dict[Seq, SnapshotRecord], set[Seq]]:
    """Return every record up to the head, and the numbers of those that cannot be read.

    Raises when the head's own chain has a hole.
    """
    records: dict[Seq, SnapshotRecord] = {}
    damaged = set[Seq]()

    async def one(seq: Seq) -> None:
        try:
            records[seq] = await heads.fetch_record(replica, seq, deadline=deadline)
        except ObjectMissingError:
            return  # another run was quicker
        except ObjectNotEncryptedError:
            raise
        except CorruptObjectError as error:
            log.warning("commit record cannot be read", project=replica.name, seq=seq, reason=error.message)
            damaged.add(seq)

    await tasks.each((seq for seq in seqs if seq <= head.seq), one, at_once=READERS)
    hole = chain.hole(head, records)
    if hole is not None or records[head.seq].nonce != head.nonce:
        raise RefusedError(
            f"the newest snapshot of {replica.name} builds on snapshot {hole or head.seq}, which is damaged: "
            "nothing is deleted",
            remedy="run `membridge verify`",
        )
    return records, damaged


def stretches(left: Collection[Seq], going: Mapping[Seq, SnapshotRecord]) -> list[list[SnapshotRecord]]:
    """Return the commits to delete in lists, each newest first, that do not build on each other.

    What lies between two commits that are left builds on the older one of these.
    """
    found: list[list[SnapshotRecord]] = [[]]
    for seq in sorted({*left, *going}):
        record, last = going.get(seq), found[-1]
        if record is None or (last and last[-1].full_seq != record.full_seq):
            found.append([])
        if record is not None:
            found[-1].append(record)
    return [one[::-1] for one in found if one]


async def _carry_out(replica: Replica, plan: _Plan, *, progress: ProgressTracker, deadline: Deadline) -> None:
    # What lost the race for the head is no ancestor of it: no mirror may take it for one.
    ancestors = {seq: record for seq, record in plan.going.items() if seq not in plan.stepped_over}
    await pruned.remember(replica, ancestors, deadline=deadline)
    gone = [*plan.strays.values(), *plan.going.values()]
    garbage = [layout.commit(replica.project, seq) for seq in plan.unreadable]
    garbage += [_own(replica, stored.key) for record in gone for stored in record.objects()]
    garbage += [info.key for info in (*plan.orphans, *plan.proposals)]
    total, done = len(gone) + len(garbage), 0

    async def delete(key: str) -> None:
        nonlocal done
        await replica.store.delete(key, deadline=deadline)
        done += 1
        progress.advance(done, total)

    async def delete_in_order(records: list[SnapshotRecord]) -> None:
        for record in records:
            await delete(layout.commit(replica.project, record.seq))

    with progress.step("delete"):
        await delete_in_order(list(plan.strays.values()))
        await tasks.each(stretches(plan.left, plan.going), delete_in_order, at_once=DELETERS)
        # No record names these any more: in any order.
        await tasks.each(garbage, delete, at_once=DELETERS)


def _own(replica: Replica, key: str) -> str:
    if not key.startswith(layout.snapshots(replica.project)):
        raise CorruptObjectError(f"a commit record of {replica.name} names {key}, an object of another project")
    return key


def _present(objects: list[ObjectInfo]) -> datetime:
    """Return the time by the store, or by this node where that is earlier: one wrong clock makes nothing old."""
    now = clock.now()
    return min(now, max((at for info in objects if (at := _modified(info)) is not None), default=now))


def _older(info: ObjectInfo, present: datetime, seconds: float) -> bool:
    at = _modified(info)
    return at is not None and (present - at).total_seconds() > seconds


def _modified(info: ObjectInfo) -> datetime | None:
    return clock.known(info.modified_at)
