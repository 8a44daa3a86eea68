"""The head of a project: read, settled after a crash, and moved by a commit that both stores fence.

The commit record of a seq goes into the object store only if absent, then the head in KV moves by compare-and-set. A
crash between the two leaves a record ahead of the head: `settle` rolls the head forward. Nothing here takes an epoch
for granted: a commit under an old one fails in at least one of the stores.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from membridge import bounded
from membridge.deadline import Deadline
from membridge.errors import (
    CorruptObjectError,
    HeadMovedError,
    ObjectExistsError,
    ObjectMissingError,
    RevisionMovedError,
    StaleEpochError,
    UnsupportedFormatError,
)
from membridge.snapshot import layout
from membridge.snapshot.lane import Lane
from schemas.identity import Seq
from schemas.snapshot import FORMAT, Head, SnapshotRecord
from schemas.wire import WireError, decode, encode

#: Commit records read at once.
READERS = 8


@dataclass(frozen=True, slots=True)
class KnownHead:
    """The head as read: its record, the KV revision it had (0: KV has none), and whether the store has the record."""

    record: SnapshotRecord
    revision: int
    stored: bool = True


async def read(lane: Lane, *, deadline: Deadline) -> KnownHead | None:
    """Return the head: KV's, or the store's newest commit when KV has lost it; None for a project without snapshots."""
    entry = await lane.heads.get(lane.project, deadline=deadline)
    if entry is not None:
        _check_format(entry.value.record)
        return KnownHead(entry.value.record, entry.revision)
    newest = await newest_seq(lane, deadline=deadline)
    if newest is None:
        return None
    return KnownHead(await fetch_record(lane, newest, deadline=deadline), 0)


async def settle(lane: Lane, *, deadline: Deadline) -> KnownHead | None:
    """Return the head after both stores were brought to say the same.

    Records that lie beyond KV's head were committed by somebody who was killed before moving it: the head follows. A
    head whose record the store has lost is reported as not `stored`: the next snapshot is then a full one.
    """
    known = await read(lane, deadline=deadline)
    if known is None:
        return None
    if known.revision == 0:
        known = await _move(lane, known.record, revision=0, deadline=deadline)
    stored = await find_record(lane, known.record.seq, deadline=deadline) is not None
    while (beyond := await find_record(lane, known.record.seq + 1, deadline=deadline)) is not None:
        if beyond.parent_sha256 != known.record.sha256 or beyond.epoch < known.record.epoch:
            raise CorruptObjectError(
                f"the commit record of seq {beyond.seq} does not build on the head",
                remedy="run `membridge doctor`",
            )
        known = await _move(lane, beyond, revision=known.revision, deadline=deadline)
        stored = True
    return KnownHead(known.record, known.revision, stored)


async def commit(lane: Lane, record: SnapshotRecord, known: KnownHead | None, *, deadline: Deadline) -> KnownHead:
    """Make `record` the head after `known`; return the new head.

    Errors: StaleEpochError when a newer epoch has committed, HeadMovedError when `known` is no longer the head. Then
    nothing changed, and the uploaded object is an orphan for retention. A failure after the record was stored is not
    undone: the next `settle` finds it.
    """
    if known is not None and record.epoch < known.record.epoch:
        raise _stale(lane, record, known.record)
    conditional = (await lane.store.describe(deadline=deadline)).conditional_put
    if not conditional:
        # KV alone fences: the record may only be written by whoever moved the head.
        moved = await _move(lane, record, revision=known.revision if known else 0, deadline=deadline)
        await lane.store.put(
            layout.commit(lane.project, record.seq), encode(record), if_absent=False, deadline=deadline
        )
        return moved
    await _check_unmoved(lane, record, known, deadline=deadline)
    try:
        await lane.store.put(layout.commit(lane.project, record.seq), encode(record), deadline=deadline)
    except ObjectExistsError as error:
        winner = await fetch_record(lane, record.seq, deadline=deadline)
        if winner.nonce != record.nonce:
            if winner.epoch > record.epoch:
                raise _stale(lane, record, winner) from error
            raise HeadMovedError(f"seq {record.seq} of {lane.name} was committed by {winner.node}") from error
    return await _move(lane, record, revision=known.revision if known else 0, deadline=deadline)


async def fetch_record(lane: Lane, seq: Seq, *, deadline: Deadline) -> SnapshotRecord:
    """Return the commit record of `seq`.

    Errors: ObjectMissingError, CorruptObjectError when it is no record of this seq, UnsupportedFormatError.
    """
    key = layout.commit(lane.project, seq)
    body = await lane.store.get(key, deadline=deadline)
    try:
        record = decode(body, SnapshotRecord)
    except WireError as error:
        raise CorruptObjectError(f"{key} is no commit record: {error}") from error
    _check_format(record)
    if record.seq != seq or record.project != lane.project:
        raise CorruptObjectError(f"{key} is the record of another snapshot")
    return record


async def find_record(lane: Lane, seq: Seq, *, deadline: Deadline) -> SnapshotRecord | None:
    """Return the commit record of `seq`, None when there is none."""
    try:
        return await fetch_record(lane, seq, deadline=deadline)
    except ObjectMissingError:
        return None


async def fetch_records(lane: Lane, seqs: Iterable[Seq], *, deadline: Deadline) -> dict[Seq, SnapshotRecord]:
    """Return the commit records of `seqs` that are there, some read at once."""
    found: dict[Seq, SnapshotRecord] = {}

    async def one(seq: Seq) -> None:
        record = await find_record(lane, seq, deadline=deadline)
        if record is not None:
            found[seq] = record

    await bounded.each(seqs, one, at_once=READERS)
    return found


async def _check_unmoved(lane: Lane, record: SnapshotRecord, known: KnownHead | None, *, deadline: Deadline) -> None:
    """Refuse early what the head's compare-and-set would refuse: of a seq long past no record may be there any more."""
    entry = await lane.heads.get(lane.project, deadline=deadline)
    if (entry.revision if entry else 0) == (known.revision if known else 0):
        return
    if entry is not None and entry.value.record.epoch > record.epoch:
        raise _stale(lane, record, entry.value.record)
    raise HeadMovedError(f"the head of {lane.name} moved before seq {record.seq} was committed")


async def newest_seq(lane: Lane, *, deadline: Deadline) -> Seq | None:
    """Return the seq of the newest commit record, None when there is none."""
    newest: Seq | None = None
    async for info in lane.store.list(layout.commits(lane.project), deadline=deadline):
        newest = layout.seq_of_commit(info.key) or newest
    return newest


async def _move(lane: Lane, record: SnapshotRecord, *, revision: int, deadline: Deadline) -> KnownHead:
    head = Head(record=record)
    try:
        if revision:
            moved = await lane.heads.update(lane.project, head, revision=revision, deadline=deadline)
        else:
            moved = await lane.heads.create(lane.project, head, deadline=deadline)
    except RevisionMovedError as error:
        entry = await lane.heads.get(lane.project, deadline=deadline)
        if entry is not None and entry.value.record.nonce == record.nonce:
            return KnownHead(record, entry.revision)
        if entry is not None and entry.value.record.epoch > record.epoch:
            raise _stale(lane, record, entry.value.record) from error
        raise HeadMovedError(f"the head of {lane.name} moved while seq {record.seq} was being committed") from error
    return KnownHead(record, moved)


def _stale(lane: Lane, record: SnapshotRecord, winner: SnapshotRecord) -> StaleEpochError:
    return StaleEpochError(
        f"epoch {record.epoch} of project {lane.name} is over, {winner.node} committed under epoch {winner.epoch}"
    )


def _check_format(record: SnapshotRecord) -> None:
    if record.format > FORMAT:
        raise UnsupportedFormatError(
            f"seq {record.seq} was written in format {record.format}, this version reads up to {FORMAT}"
        )
