"""Push: commit the live database as the next snapshot.

Copies while claude-mem keeps writing, sends only changed pages, and commits fenced in both stores. Never writes to the
live database, except by the merge of a head that this node has not seen yet. Killed at any point it leaves at most an
orphaned object, or a commit that the next push finds and settles.
"""

import asyncio
import secrets
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import zstandard

from membridge.aio import threads
from membridge.aio.deadline import Deadline
from membridge.aio.tasks import first_failure
from membridge.claudemem import database, durable
from membridge.commits import chain, delta, heads, layout
from membridge.commits.chain import Position
from membridge.commits.heads import KnownHead
from membridge.commits.mirror import map_file
from membridge.commits.progress import ProgressTracker
from membridge.errors import (
    CorruptObjectError,
    DatabaseMissingError,
    NotFoundError,
    ObjectMissingError,
    RefusedError,
    ShrinkRefusedError,
    StaleEpochError,
)
from membridge.merge import collect, install
from membridge.snapshot import legacy, pull, rollback_guard, standing
from membridge.snapshot.lane import Lane
from membridge.system import clock, files
from schemas.events import SnapshotCommitted
from schemas.identity import Epoch, Seq
from schemas.snapshot import PushOutcome, PushReply, SnapshotKind, SnapshotObject, SnapshotRecord

#: zstd level of a full snapshot: a 50 MiB database takes 0.3 s, and higher levels save little.
FULL_LEVEL = 3
#: What helps when the database has lost many rows: before a push, after a restore, and where the store lost its memory.
_GET_BACK = (
    "to get the rows back run `membridge restore --seq {seq}`; "
    "if they were deleted on purpose, `membridge push --allow-shrink`"
)
_RESTORE_AGAIN = "nothing was committed; run `membridge restore --seq {seq}` again"
_FROM_MIRROR = "run `membridge recover --from mirror`: it commits the newest state that this node has seen"


@dataclass(frozen=True, slots=True)
class Copy:
    """A consistent copy of the live database and its facts; `alone` when it is sent as a full snapshot.

    `forgotten` when it is a forgotten mirror: no base of the live database, which may lack rows that it has. `since` is
    where the row index stood before the live database was copied, None for a copy of something else.
    """

    path: Path
    sha256: str
    page_size: int
    page_count: int
    rows: dict[str, int]
    alone: bool = False
    forgotten: bool = False
    since: int | None = None


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
    with progress.step("head"):
        known = await current_head(lane, epoch, progress=progress, deadline=deadline)
    same = None
    if known is not None and known.stored:
        with progress.step("compare"):
            same = await threads.run(standing.is_memory_of, lane, known.record, deadline=deadline)
        if same:
            return _unchanged(known)
    staged = await threads.run(lane.mirror.stage)
    packed_path = staged.with_name("packed.part")
    try:
        with progress.step("copy"):
            copy = await threads.run(_copy, lane, staged, progress, deadline)
        if restored is not None:
            _check_shrink(lane, restored, copy, remedy=_RESTORE_AGAIN)
        elif not allow_shrink:
            await rollback_guard.check(lane, deadline=deadline)
            _check_shrink(lane, known.record if known else None, copy, remedy=_GET_BACK)
        if known is not None and known.stored and same is None:
            same = await threads.run(_is_same_memory, lane, known, copy, deadline)
            if same:
                return _unchanged(known)
        return await _commit(lane, known, copy, packed_path, epoch=epoch, progress=progress, deadline=deadline)
    finally:
        await threads.run(_remove, [packed_path, staged])


async def push_full(
    lane: Lane, *, from_mirror: bool, epoch: Epoch, progress: ProgressTracker, deadline: Deadline
) -> PushReply:
    """Commit a full snapshot of the mirror or the live database as the new head, whatever the stores have lost.

    Errors: RefusedError when the mirror is not the newest state that is known: what it lacks would be deleted
    everywhere; ShrinkRefusedError for a database that lost many rows. Otherwise as `push`.
    """
    await lane.store.warm()
    with progress.step("head"):
        known = await heads.to_recover(lane, deadline=deadline)
        await _check_newest(lane, known, from_mirror=from_mirror, deadline=deadline)
        known = _beyond_mirror(lane, known)
    staged = await threads.run(lane.mirror.stage)
    packed_path = staged.with_name("packed.part")
    try:
        with progress.step("copy"):
            copied = await threads.run(_copy_mirror if from_mirror else _copy, lane, staged, progress, deadline)
            copy = replace(copied, alone=True)
        if not from_mirror:
            _check_shrink(lane, known.record if known else None, copy, remedy=_FROM_MIRROR)
        return await _commit(lane, known, copy, packed_path, epoch=epoch, progress=progress, deadline=deadline)
    finally:
        await threads.run(_remove, [packed_path, staged])


async def commit_epoch(lane: Lane, *, epoch: Epoch, deadline: Deadline) -> KnownHead | None:
    """Commit nothing but `epoch`: a new primary's first act, which shuts every older epoch out.

    Returns the head; None when the project has no snapshot yet, so that there is nothing to fence. On a head that the
    store has lost nothing can build: the full snapshot that the next push commits brings the epoch.
    """
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
        page_size=head.page_size,
        page_count=head.page_count,
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


def _unchanged(known: KnownHead) -> PushReply:
    return PushReply(outcome=PushOutcome.UNCHANGED, seq=known.record.seq, epoch=known.record.epoch)


async def _commit(  # noqa: PLR0913 - what a commit is made of, and what every long work takes
    lane: Lane,
    known: KnownHead | None,
    copy: Copy,
    target: Path,
    *,
    epoch: Epoch,
    progress: ProgressTracker,
    deadline: Deadline,
) -> PushReply:
    """Send the copy and make it the head and the mirror."""
    seq = known.next_seq if known else await _first_seq(lane, deadline=deadline)
    packed = await _send(lane, known, copy, target, seq, progress=progress, deadline=deadline)
    record = _record(lane, known, copy, packed, epoch=epoch)
    with progress.step("commit"):
        await heads.commit(lane, record, known, deadline=deadline)
    if not copy.forgotten:
        await threads.run(_advance, lane, copy, record)
    await _announce(lane, record)
    if lane.policy.publish_legacy:
        with progress.step("legacy"):
            await legacy.publish(lane, record, deadline=deadline)
    return PushReply(
        outcome=PushOutcome.COMMITTED,
        seq=record.seq,
        epoch=record.epoch,
        kind=record.kind,
        rows=sum(copy.rows.values()),
        uploaded_bytes=packed.size_bytes,
    )


async def _send(  # noqa: PLR0913 - as `_commit`
    lane: Lane,
    known: KnownHead | None,
    copy: Copy,
    target: Path,
    seq: Seq,
    *,
    progress: ProgressTracker,
    deadline: Deadline,
) -> PackedSnapshot:
    """Pack and upload the copy; return what was stored.

    Meanwhile SQLite checks that the copy is sound, and what was copied is forced to the disk of this machine: a power
    cut must not take from it what other nodes are about to have.
    """
    with first_failure():
        async with asyncio.TaskGroup() as group:
            group.create_task(threads.run(database.quick_check, copy.path, deadline=deadline), name="check the copy")
            group.create_task(threads.run(_make_durable, lane), name="force the database to the disk")
            with progress.step("pack"):
                packed = await threads.run(_pack, lane, known, copy, target, seq)
            with progress.step("upload"):
                await lane.store.upload(packed.key, target, deadline=deadline, progress=progress.advance)
    return packed


def _make_durable(lane: Lane) -> None:
    # `recover --from mirror` works without a live database.
    with suppress(DatabaseMissingError):
        durable.force(lane.database)


def _remove(leftovers: list[Path]) -> None:
    # A copy is as large as the database: one that did not become the mirror is not kept until the next push.
    for path in leftovers:
        files.discard(path)


def _copy(lane: Lane, staged: Path, progress: ProgressTracker, deadline: Deadline) -> Copy:
    since = standing.turn(lane, deadline=deadline)
    facts = database.inspect(lane.database, deadline=deadline)
    database.copy_database(lane.database, staged, deadline=deadline, progress=progress.advance)
    copied = database.inspect(staged, deadline=deadline)
    if copied.page_count * copied.page_size != staged.stat().st_size:
        copied = facts
    return Copy(staged, files.sha256_of(staged), copied.page_size, copied.page_count, copied.rows, since=since)


def _copy_mirror(lane: Lane, staged: Path, progress: ProgressTracker, deadline: Deadline) -> Copy:
    del progress
    last, is_forgotten = lane.mirror.last(), lane.mirror.position() is None
    if last is None:
        raise NotFoundError(
            f"this node has no mirror of {lane.name}: it has never pushed or pulled a snapshot",
            remedy="run `membridge recover --from database`",
        )
    position, mirror = last
    files.copy(mirror, staged)
    facts, sha256 = database.inspect(staged, deadline=deadline), files.sha256_of(staged)
    if sha256 != position.sha256:
        raise CorruptObjectError(
            f"this node's mirror of {lane.name}, its copy of snapshot {position.seq}, is damaged",
            remedy="run `membridge recover --from mirror` on another node, or `membridge recover --from database` here",
        )
    return Copy(staged, sha256, facts.page_size, facts.page_count, facts.rows, forgotten=is_forgotten)


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


def _check_shrink(lane: Lane, wanted: SnapshotRecord | None, copy: Copy, *, remedy: str) -> None:
    """Refuse a copy that lacks too many of the rows that the snapshot `wanted` has."""
    if wanted is None:
        return
    before, after = sum(wanted.rows.values()), sum(copy.rows.values())
    if (before - after) * 100 > before * lane.policy.shrink_percent:
        raise ShrinkRefusedError(
            f"the database of {lane.name} has {after} rows, snapshot {wanted.seq} has {before}: "
            f"more than {lane.policy.shrink_percent:g} % would be lost",
            remedy=remedy.format(seq=wanted.seq),
        )


def _is_same_memory(lane: Lane, known: KnownHead, copy: Copy, deadline: Deadline) -> bool:
    if copy.sha256 == known.record.sha256:
        return True
    mirror = lane.mirror.path()
    if mirror is None or copy.rows != known.record.rows:
        return False
    return not collect.differs(copy.path, mirror, deadline=deadline)


def _pack(lane: Lane, known: KnownHead | None, copy: Copy, target: Path, seq: Seq) -> PackedSnapshot:
    parent = None if copy.alone else lane.mirror.path()
    with files.translated(target):
        if known is not None and known.stored and parent is not None and copy.page_size == known.record.page_size:
            size = _write_delta(known.record, parent, copy, target)
            if not chain.starts_new_chain(known.record, size, lane.chain):
                return _packed(lane, seq, SnapshotKind.DELTA, target, size)
        return _packed(lane, seq, SnapshotKind.FULL, target, _write_full(copy, target))


def _packed(lane: Lane, seq: Seq, kind: SnapshotKind, path: Path, size: int) -> PackedSnapshot:
    nonce = secrets.token_hex(8)
    return PackedSnapshot(
        seq, nonce, layout.snapshot(lane.project, seq, kind, nonce), kind, files.sha256_of(path), size
    )


def _write_delta(head: SnapshotRecord, parent: Path, copy: Copy, target: Path) -> int:
    theirs, ours = map_file(parent), map_file(copy.path)
    try:
        header = delta.Header(copy.page_size, copy.page_count, bytes.fromhex(head.sha256), bytes.fromhex(copy.sha256))
        changed = delta.diff(theirs, ours, copy.page_size)
        return _write(delta.encode(theirs, ours, header, changed), target)
    finally:
        theirs.close()
        ours.close()


def _write_full(copy: Copy, target: Path) -> int:
    compressor = zstandard.ZstdCompressor(level=FULL_LEVEL, write_checksum=True)
    with copy.path.open("rb") as source:
        return _write(compressor.read_to_iter(source, read_size=files.BLOCK, write_size=files.BLOCK), target)


def _write(chunks: Iterator[bytes], target: Path) -> int:
    with target.open("wb") as file:
        return sum(file.write(chunk) for chunk in chunks)


def _record(lane: Lane, known: KnownHead | None, copy: Copy, packed: PackedSnapshot, *, epoch: Epoch) -> SnapshotRecord:
    head, full = known.record if known else None, packed.kind is SnapshotKind.FULL
    return SnapshotRecord(
        project=lane.project,
        seq=packed.seq,
        epoch=epoch,
        parent_seq=head.seq if head else 0,
        parent_sha256=head.sha256 if head else None,
        kind=packed.kind,
        sha256=copy.sha256,
        page_size=copy.page_size,
        page_count=copy.page_count,
        object=SnapshotObject(key=packed.key, sha256=packed.sha256, size_bytes=packed.size_bytes),
        full_seq=packed.seq if full or head is None else head.full_seq,
        full_bytes=packed.size_bytes if full or head is None else head.full_bytes,
        chain_bytes=0 if full or head is None else head.chain_bytes + packed.size_bytes,
        rows=copy.rows,
        node=lane.node,
        device_id=database.device_id(lane.database),
        created_at=clock.stamp(),
        nonce=packed.nonce,
    )


def _advance(lane: Lane, copy: Copy, record: SnapshotRecord) -> None:
    position = Position(record.seq, record.epoch, record.sha256)
    try:
        lane.mirror.adopt(copy.path, position)
        lane.mirror.advance(position)
        standing.moved(lane, record.sha256, {}, since=copy.since)
    except BaseException:
        # The commit stands; this node's next push or pull fetches what it could not keep.
        lane.mirror.sweep()
        raise


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
