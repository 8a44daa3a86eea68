"""Push: commit the live database as the next snapshot.

Sends the rows that changed, or all of them, while claude-mem keeps writing, and commits fenced in both stores. What is
sent is taken into the mirror first, in a transaction that only the commit ends: it fits, or it is not sent. Never
writes to the live database, except by the merge of a head that this node has not seen yet. Killed at any point it
leaves at most an orphaned object, or a commit that the next push finds and settles.
"""

import asyncio
import secrets
from contextlib import suppress
from dataclasses import dataclass, replace

from membridge.aio import threads
from membridge.aio.deadline import Deadline
from membridge.aio.tasks import first_failure
from membridge.claudemem import database, durable
from membridge.claudemem.translate import translated
from membridge.commits import chain, heads, layout, mirror, rollups
from membridge.commits.chain import Position
from membridge.commits.heads import KnownHead
from membridge.commits.progress import ProgressTracker
from membridge.errors import (
    DatabaseMissingError,
    MembridgeError,
    ObjectMissingError,
    RefusedError,
    ShrinkRefusedError,
    StaleEpochError,
)
from membridge.merge import install
from membridge.snapshot import legacy, preparation, pull, rollback_guard, standing
from membridge.snapshot.lane import Lane
from membridge.snapshot.preparation import Place, Prepared
from membridge.system import clock, files
from schemas.events import SnapshotCommitted
from schemas.identity import Epoch, Seq
from schemas.snapshot import PushOutcome, PushReply, Rollup, SnapshotKind, SnapshotObject, SnapshotRecord

#: What helps when the database has lost many rows: before a push, after a restore, and where the store lost its memory.
_GET_BACK = (
    "to get the rows back run `membridge restore --seq {seq}`; "
    "if they were deleted on purpose, `membridge push --allow-shrink`"
)
_RESTORE_AGAIN = "nothing was committed; run `membridge restore --seq {seq}` again"
_FROM_MIRROR = "run `membridge recover --from mirror`: it commits the newest state that this node has seen"


@dataclass(frozen=True, slots=True)
class PackedSnapshot:
    """The bytes of a commit's object, ready to be stored under `key`."""

    seq: Seq
    nonce: str
    key: str
    kind: SnapshotKind
    sha256: str
    size_bytes: int


async def push(
    lane: Lane,
    *,
    epoch: Epoch,
    allow_shrink: bool,
    restored: SnapshotRecord | None = None,
    progress: ProgressTracker,
    deadline: Deadline,
) -> PushReply:
    """Commit the live database under `epoch`; return the new seq, or `unchanged` when the memory is the head's.

    After a restore of `restored` the shrink bound compares with that snapshot, not with the head.

    Errors: StaleEpochError and HeadMovedError when another node committed (nothing changed), ShrinkRefusedError,
    DatabaseMissingError and the other database errors, DiskFullError, the store's and the bus' errors.
    """
    await lane.store.warm()
    await threads.run(install.sweep, lane.database)
    await threads.run(lane.mirror.settle, deadline=deadline)
    with progress.step("head"):
        known = await current_head(lane, epoch, progress=progress, deadline=deadline)
        if known is None and lane.mirror.position() is None:
            # What the old tool stored belongs to the first snapshot: later pulls do not look for it.
            await pull.pull_if_any(lane, progress=progress, deadline=deadline)
    with progress.step("compare"):
        prepared = await threads.run(preparation.changes, lane, known, deadline)
    if prepared is None:
        if known is None:
            raise AssertionError("a first snapshot is always a full one")
        return PushReply(outcome=PushOutcome.UNCHANGED, seq=known.record.seq, epoch=known.record.epoch)
    try:
        if restored is not None:
            _check_shrink(lane, restored, prepared, remedy=_RESTORE_AGAIN)
        elif not allow_shrink:
            await rollback_guard.check(lane, deadline=deadline)
            _check_shrink(lane, known.record if known else None, prepared, remedy=_GET_BACK)
        return await _commit(lane, known, prepared, epoch=epoch, progress=progress, deadline=deadline)
    finally:
        await threads.run(_discard, lane, prepared)


async def push_full(
    lane: Lane, *, from_mirror: bool, epoch: Epoch, progress: ProgressTracker, deadline: Deadline
) -> PushReply:
    """Commit a full snapshot of the mirror or the live database as the new head, whatever the stores have lost.

    Errors: RefusedError when the mirror is not the newest state that is known: what it lacks would be deleted
    everywhere; ShrinkRefusedError for a database that lost many rows. Otherwise as `push`.
    """
    await lane.store.warm()
    await threads.run(lane.mirror.settle, deadline=deadline)
    with progress.step("head"):
        known = await heads.to_recover(lane, deadline=deadline)
        await _check_newest(lane, known, from_mirror=from_mirror, deadline=deadline)
        known = _beyond_mirror(lane, known)
    with progress.step("compare"):
        prepared = await threads.run(
            preparation.whole_mirror if from_mirror else preparation.whole_database, lane, deadline
        )
    try:
        if not from_mirror:
            _check_shrink(lane, known.record if known else None, prepared, remedy=_FROM_MIRROR)
        return await _commit(lane, known, prepared, epoch=epoch, progress=progress, deadline=deadline)
    finally:
        await threads.run(_discard, lane, prepared)


async def commit_epoch(lane: Lane, *, epoch: Epoch, deadline: Deadline) -> KnownHead | None:
    """Commit nothing but `epoch`: a new primary's first act, which shuts every older epoch out.

    Returns the head; None when the project has no snapshot yet, so that there is nothing to fence. On a head that the
    store has lost nothing can build: the full snapshot that the next push commits brings the epoch.
    """
    await threads.run(lane.mirror.settle, deadline=deadline)
    known = await heads.settle(lane, deadline=deadline)
    if known is None or not known.stored or known.record.epoch == epoch:
        return known
    if chain.went_back(known.record, lane.mirror.position()):
        # An older memory under a newer epoch would pass for the newest: the recovery is the first commit of this one.
        return known
    head = known.record
    record = SnapshotRecord(
        project=lane.project,
        seq=known.next_seq,
        epoch=epoch,
        parent_seq=head.seq,
        parent_sha256=head.sha256,
        kind=SnapshotKind.EMPTY,
        sha256=head.sha256,
        size_bytes=head.size_bytes,
        full_seq=head.full_seq,
        full_bytes=head.full_bytes,
        chain_bytes=head.chain_bytes,
        rows=head.rows,
        node=lane.node,
        device_id=head.device_id,
        created_at=clock.stamp(),
        nonce=secrets.token_hex(8),
    )
    moved = await heads.commit(lane, record, known, deadline=deadline)
    position = lane.mirror.position()
    if position is not None and position.sha256 == record.sha256 and position.seq == head.seq:
        await threads.run(lane.mirror.advance, Position(record.seq, epoch, record.sha256))
    await _announce(lane, record)
    return moved


async def current_head(lane: Lane, epoch: Epoch, *, progress: ProgressTracker, deadline: Deadline) -> KnownHead | None:
    """Return the settled head with the mirror at it: what others committed is merged before anything is sent.

    Errors: StaleEpochError, ObjectMissingError when the store has lost a head that this node has not seen, and those of
    `pull`.
    """
    known = await heads.settle(lane, deadline=deadline)
    if known is None:
        return None
    head = known.record
    if head.epoch > epoch:
        raise StaleEpochError(f"node {head.node} is primary of {lane.name} now: epoch {head.epoch}, not {epoch}")
    position = lane.mirror.position()
    if not known.stored and (position is None or position.sha256 != head.sha256):
        # A full snapshot without its rows would delete them where they are.
        raise ObjectMissingError(
            f"the object store has lost snapshot {head.seq} of {lane.name}, and this node never pulled it",
            remedy="run `membridge recover --from mirror` on the node whose memory is the newest",
        )
    if known.stored and position != Position(head.seq, head.epoch, head.sha256):
        await pull.bring_up(lane, head, progress=progress, deadline=deadline)
    return known


async def _commit(
    lane: Lane,
    known: KnownHead | None,
    prepared: Prepared,
    *,
    epoch: Epoch,
    progress: ProgressTracker,
    deadline: Deadline,
) -> PushReply:
    """Send what was prepared, make it the head, and the state that results the mirror."""
    seq = known.next_seq if known else await _first_seq(lane, deadline=deadline)
    packed = await _send(lane, prepared, seq, progress=progress, deadline=deadline)
    made: list[Rollup] = []
    if known is not None and packed.kind is SnapshotKind.DELTA:
        with progress.step("rollups"):
            made = await rollups.make(lane, known.record, seq, prepared.path, packed.size_bytes, deadline=deadline)
    record = _record(lane, known, prepared, packed, epoch=epoch, made=made)
    with progress.step("commit"):
        await heads.commit(lane, record, known, deadline=deadline)
    await threads.run(_advance, lane, prepared, record)
    await _announce(lane, record)
    if lane.policy.publish_legacy:
        with progress.step("legacy"):
            await legacy.publish(lane, record, deadline=deadline)
    return PushReply(
        outcome=PushOutcome.COMMITTED,
        seq=record.seq,
        epoch=record.epoch,
        kind=record.kind,
        rows=sum(prepared.rows.values()),
        uploaded_bytes=sum(stored.size_bytes for stored in record.objects()),
    )


async def _send(
    lane: Lane, prepared: Prepared, seq: Seq, *, progress: ProgressTracker, deadline: Deadline
) -> PackedSnapshot:
    """Upload what was prepared; return what was stored.

    Meanwhile what was read is forced to the disk of this machine: a power cut must not take from it what other nodes
    are about to have. So is a file that becomes the mirror, which takes as long when it is adopted.
    """
    packed = await threads.run(_packed, lane, prepared, seq)
    with first_failure():
        async with asyncio.TaskGroup() as group:
            group.create_task(threads.run(_make_durable, lane, prepared), name="force the database to the disk")
            with progress.step("upload"):
                await lane.store.upload(packed.key, prepared.path, deadline=deadline, progress=progress.advance)
    return packed


def _make_durable(lane: Lane, prepared: Prepared) -> None:
    # `recover --from mirror` works without a live database.
    with suppress(DatabaseMissingError):
        durable.force(lane.database)
    if prepared.place is Place.STAGED:
        files.force(prepared.memory.path)


def _discard(lane: Lane, prepared: Prepared) -> None:
    """Forget what was prepared: a state that did not become the mirror is not kept until the next push.

    A failure is ignored: it would take the place of what ended the push, a cancellation too.
    """
    with suppress(OSError, MembridgeError), translated(prepared.memory.path):
        prepared.memory.close()
    files.discard(prepared.path)
    with suppress(OSError, MembridgeError):
        lane.mirror.sweep()


async def _first_seq(lane: Lane, *, deadline: Deadline) -> Seq:
    """Return the seq of the first commit without a head: beyond every record, and all that this node has seen."""
    last = lane.mirror.last()
    return 1 + max(await heads.newest_seq(lane, deadline=deadline), last[0].seq if last else 0)


async def _check_newest(lane: Lane, known: KnownHead | None, *, from_mirror: bool, deadline: Deadline) -> None:
    """Refuse a mirror if another node's may be ahead of it: rows that it lacks would be deleted there.

    Nodes whose mirror's record is lost merge without a base, so that only records that are there can do harm. A mirror
    that was forgotten says nothing of the live database.
    """
    last = lane.mirror.last() if from_mirror else None
    position = last[0] if last else lane.mirror.position()
    if known is not None and known.stored:
        newest = known.record
        # If the head went back, the mirror is newer and may be committed.
        current = position is not None and (position.sha256 == newest.sha256 or chain.went_back(newest, position))
    else:
        newest = await heads.newest_record(lane, deadline=deadline)
        current = newest is None or (position is not None and position.seq >= newest.seq)
    if not current:
        raise RefusedError(
            f"this node has not pulled snapshot {known.record.seq if known else newest.seq if newest else 0}, the "
            "newest one: recovering from here would delete its rows everywhere",
            remedy="run `membridge recover` on a node with the highest seq in `membridge nodes`",
        )


def _beyond_mirror(lane: Lane, known: KnownHead | None) -> KnownHead | None:
    """Return the head such that the next seq is beyond the mirror's: nodes refuse a head that went back."""
    last = lane.mirror.last()
    if known is None or last is None:
        return known
    return replace(known, strays=max(known.strays, last[0].seq - known.record.seq))


def _check_shrink(lane: Lane, wanted: SnapshotRecord | None, prepared: Prepared, *, remedy: str) -> None:
    """Refuse a state that lacks too many of the rows that the snapshot `wanted` has."""
    if wanted is None:
        return
    before, after = sum(wanted.rows.values()), sum(prepared.rows.values())
    if (before - after) * 100 > before * lane.policy.shrink_percent:
        raise ShrinkRefusedError(
            f"the database of {lane.name} has {after} rows, snapshot {wanted.seq} has {before}: "
            f"more than {lane.policy.shrink_percent:g} % would be lost",
            remedy=remedy.format(seq=wanted.seq),
        )


def _packed(lane: Lane, prepared: Prepared, seq: Seq) -> PackedSnapshot:
    nonce, path = secrets.token_hex(8), prepared.path
    key = layout.snapshot(lane.project, seq, prepared.kind, nonce)
    return PackedSnapshot(seq, nonce, key, prepared.kind, files.sha256_of(path), path.stat().st_size)


def _record(
    lane: Lane, known: KnownHead | None, prepared: Prepared, packed: PackedSnapshot, *, epoch: Epoch, made: list[Rollup]
) -> SnapshotRecord:
    head, full = known.record if known else None, packed.kind is SnapshotKind.FULL
    return SnapshotRecord(
        project=lane.project,
        seq=packed.seq,
        epoch=epoch,
        parent_seq=head.seq if head else 0,
        parent_sha256=head.sha256 if head else None,
        kind=packed.kind,
        sha256=prepared.sha256,
        size_bytes=prepared.size_bytes,
        object=SnapshotObject(key=packed.key, sha256=packed.sha256, size_bytes=packed.size_bytes),
        full_seq=packed.seq if full or head is None else head.full_seq,
        full_bytes=packed.size_bytes if full or head is None else head.full_bytes,
        chain_bytes=0 if full or head is None else head.chain_bytes + packed.size_bytes,
        rows=prepared.rows,
        node=lane.node,
        device_id=database.device_id(lane.database),
        created_at=clock.stamp(),
        nonce=packed.nonce,
        rollups=made,
    )


def _advance(lane: Lane, prepared: Prepared, record: SnapshotRecord) -> None:
    """Make what was committed the mirror. If that fails the commit stands, and the next push or pull fetches it."""
    position, memory, seen = Position(record.seq, record.epoch, record.sha256), prepared.memory, prepared.seen
    if prepared.place is Place.ASIDE:
        return
    if prepared.place is Place.STAGED:
        memory.note(mirror.encoded(position))
        memory.settle()
        memory.close()
        lane.mirror.adopt(memory.path, position)
    else:
        memory.commit(mirror.encoded(position))
        lane.mirror.advance(position)
    if seen is not None:
        standing.moved(lane, record.sha256, seen.keys, since=seen.since)


async def _announce(lane: Lane, record: SnapshotRecord) -> None:
    await lane.announce(
        SnapshotCommitted(
            project=lane.project,
            node=lane.node,
            at=record.created_at,
            seq=record.seq,
            epoch=record.epoch,
            sha256=record.sha256,
            kind=record.kind.value,
            rows=sum(record.rows.values()),
        )
    )
