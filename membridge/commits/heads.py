"""The head of a project: read, settled after a crash, and moved by a commit that both stores fence.

The commit record of a seq goes into the object store only if absent, then the head in KV moves by compare-and-set. A
crash between the two leaves a record ahead of the head: `settle` rolls the head forward. A commit under an
old epoch fails in at least one of the stores.

An unreadable record blocks nothing. The head's own record is written again, because KV holds all of it; so is a lost
record whose object still exists. An unreadable record beyond the head is a stray: no commit was confirmed there, and
the next commit takes the number after it.
"""

from collections.abc import Iterable
from contextlib import aclosing
from dataclasses import dataclass

from membridge.aio import tasks
from membridge.aio.deadline import Deadline
from membridge.commits import chain, layout
from membridge.commits.replica import Replica
from membridge.errors import (
    CorruptObjectError,
    EncryptionKeyError,
    HeadMovedError,
    ObjectExistsError,
    ObjectMissingError,
    ObjectNotEncryptedError,
    RevisionMovedError,
    StaleEpochError,
    UnsupportedFormatError,
)
from membridge.system.logging import get_logger
from schemas import buckets
from schemas.identity import Seq
from schemas.snapshot import FORMAT, Head, SnapshotRecord
from schemas.wire import WireError, decode, encode

log = get_logger("membridge.snapshot")

#: Commit records read at once.
READERS = 8


@dataclass(frozen=True, slots=True)
class KnownHead:
    """The head as read: its record, the KV revision it had (0: KV has none), and whether the store has the record.

    `strays` counts the records right beyond the head that no commit can build on.
    """

    record: SnapshotRecord
    revision: int
    stored: bool = True
    strays: int = 0

    @property
    def next_seq(self) -> Seq:
        """The number of the commit that follows."""
        return self.record.seq + 1 + self.strays


async def read(replica: Replica, *, deadline: Deadline) -> KnownHead | None:
    """Return the head: KV's, or the store's newest readable commit when KV has lost it.

    None for a project without snapshots.
    """
    entry = await replica.heads.get(replica.project, deadline=deadline)
    if entry is not None:
        _check_format(entry.value.record)
        return KnownHead(entry.value.record, entry.revision)
    newest = await newest_record(replica, deadline=deadline)
    return None if newest is None else KnownHead(newest, 0)


async def settle(replica: Replica, *, deadline: Deadline) -> KnownHead | None:
    """Return the head after both stores were brought to say the same.

    Records that lie beyond KV's head were committed by a node that was killed before it moved the head: the head
    follows. A head whose record and object the store has lost is reported as not `stored`: the next snapshot is then a
    full one.
    Errors: CorruptObjectError when a record beyond the head belongs to another history.
    """
    known = await read(replica, deadline=deadline)
    if known is None:
        return None
    if known.revision == 0:
        known = await _move(replica, known.record, revision=0, deadline=deadline)
    stored, strays = await _is_stored(replica, known.record, deadline=deadline), 0
    while True:
        head = known.record
        try:
            beyond = await find_record(replica, head.seq + 1 + strays, deadline=deadline)
        except ObjectNotEncryptedError:
            raise
        except CorruptObjectError as error:
            log.warning(
                "record beyond the head cannot be read, stepped over", project=replica.name, reason=error.message
            )
            strays += 1
            continue
        if beyond is None:
            return KnownHead(head, known.revision, stored, strays)
        if beyond.parent_seq < head.seq:
            # It lost the race for the head to a commit with a smaller number.
            strays += 1
            continue
        if beyond.parent_sha256 != head.sha256 or beyond.epoch < head.epoch:
            raise CorruptObjectError(
                f"the commit record of snapshot {beyond.seq} does not build on the newest snapshot before it",
                remedy="run `membridge recover --from mirror` on the node whose memory is the newest",
            )
        known = await _move(replica, beyond, revision=known.revision, deadline=deadline)
        stored, strays = True, 0


async def to_recover(replica: Replica, *, deadline: Deadline) -> KnownHead | None:
    """Return the head as `settle` does, whatever is damaged: for a full snapshot that takes its place."""
    try:
        return await settle(replica, deadline=deadline)
    except (CorruptObjectError, EncryptionKeyError) as error:
        log.warning("head not settled", project=replica.name, reason=error.message)
    entry = await replica.heads.get(replica.project, deadline=deadline)
    if entry is None:
        return None
    last = await newest_seq(replica, deadline=deadline)
    beyond = max(0, last - entry.value.record.seq)
    return KnownHead(entry.value.record, entry.revision, stored=False, strays=beyond)


async def commit(replica: Replica, record: SnapshotRecord, known: KnownHead | None, *, deadline: Deadline) -> KnownHead:
    """Make `record` the head after `known`; return the new head.

    Errors: StaleEpochError when a newer epoch has committed, HeadMovedError when `known` is no longer the head. Then
    nothing changed, and the uploaded object is an orphan for retention. A failure after the record was stored is not
    undone: the next `settle` finds it.
    """
    if known is not None and record.epoch < known.record.epoch:
        raise _stale(replica, record, known.record)
    conditional = (await replica.store.describe(deadline=deadline)).conditional_put
    if not conditional:
        # KV alone fences: only the process that moved the head may write the record.
        moved = await _move(replica, record, revision=known.revision if known else 0, deadline=deadline)
        await replica.store.put(
            layout.commit(replica.project, record.seq), encode(record), if_absent=False, deadline=deadline
        )
        return moved
    await _check_unmoved(replica, record, known, deadline=deadline)
    try:
        await replica.store.put(layout.commit(replica.project, record.seq), encode(record), deadline=deadline)
    except ObjectExistsError as error:
        try:
            winner = await fetch_record(replica, record.seq, deadline=deadline)
        except CorruptObjectError:
            raise HeadMovedError(
                f"snapshot {record.seq} of {replica.name} exists, and its record is damaged"
            ) from error
        if winner.nonce != record.nonce:
            if winner.epoch > record.epoch:
                raise _stale(replica, record, winner) from error
            raise HeadMovedError(
                f"node {winner.node} committed snapshot {record.seq} of {replica.name} first"
            ) from error
    return await _move(replica, record, revision=known.revision if known else 0, deadline=deadline)


async def fetch_record(replica: Replica, seq: Seq, *, deadline: Deadline) -> SnapshotRecord:
    """Return the commit record of `seq`.

    Errors: ObjectMissingError, CorruptObjectError when it is not a record of this seq, UnsupportedFormatError.
    """
    key = layout.commit(replica.project, seq)
    body = await replica.store.get(key, deadline=deadline)
    try:
        record = decode(body, SnapshotRecord)
    except WireError as error:
        raise CorruptObjectError(f"object {key} is not a commit record: {error}") from error
    _check_format(record)
    if record.seq != seq or record.project != replica.project:
        raise CorruptObjectError(f"object {key} is the commit record of another snapshot")
    return record


async def find_record(replica: Replica, seq: Seq, *, deadline: Deadline) -> SnapshotRecord | None:
    """Return the commit record of `seq`, None when there is none."""
    try:
        return await fetch_record(replica, seq, deadline=deadline)
    except ObjectMissingError:
        return None


async def fetch_records(replica: Replica, seqs: Iterable[Seq], *, deadline: Deadline) -> dict[Seq, SnapshotRecord]:
    """Return the commit records of `seqs` that are there and can be read, some at once."""
    found: dict[Seq, SnapshotRecord] = {}

    async def one(seq: Seq) -> None:
        try:
            record = await find_record(replica, seq, deadline=deadline)
        except ObjectNotEncryptedError:
            raise
        except CorruptObjectError as error:
            # What needs it finds the hole; what does not goes on.
            log.info("commit record cannot be read", project=replica.name, seq=seq, reason=error.message)
            return
        if record is not None:
            found[seq] = record

    await tasks.each(seqs, one, at_once=READERS)
    return found


async def lineage(
    replica: Replica, last: SnapshotRecord, floor: Seq, *, rollups: bool = True, deadline: Deadline
) -> dict[Seq, SnapshotRecord]:
    """Return the records that `chain.descent` needs from `last` to `floor`: `last`, and few others with `rollups`."""
    known = {last.seq: last}
    tried = {last.seq}
    wanted = set(chain.likely(last.seq, floor, last.full_seq) if rollups else range(floor, last.seq))
    while wanted:
        tried |= wanted
        known |= await fetch_records(replica, sorted(wanted - {last.seq}, reverse=True), deadline=deadline)
        lacked = set[Seq]()
        chain.descent(last, floor, known, rollups=rollups, lacked=lacked)
        # Where a rollup was not made or a number came to nothing, it is likely that the ones before are needed too.
        wanted = {seq - back for seq in lacked - tried for back in range(chain.STRIDE) if seq - back >= floor} - tried
    return known


async def _check_unmoved(
    replica: Replica, record: SnapshotRecord, known: KnownHead | None, *, deadline: Deadline
) -> None:
    """Refuse early what the head's compare-and-set would refuse: of a seq long past no record may be there any more."""
    entry = await replica.heads.get(replica.project, deadline=deadline)
    if (entry.revision if entry else 0) == (known.revision if known else 0):
        return
    if entry is not None and entry.value.record.epoch > record.epoch:
        raise _stale(replica, record, entry.value.record)
    raise HeadMovedError(f"another node committed to {replica.name} before snapshot {record.seq}")


async def newest_record(replica: Replica, *, deadline: Deadline) -> SnapshotRecord | None:
    """Return the newest commit record that can be read, None when there is none."""
    for seq in reversed(await seqs(replica, deadline=deadline)):
        found = await fetch_records(replica, [seq], deadline=deadline)
        if found:
            return found[seq]
    return None


async def newest_seq(replica: Replica, *, deadline: Deadline) -> Seq:
    """Return the seq of the newest commit record, readable or not; 0 when there is none."""
    return max(await seqs(replica, deadline=deadline), default=0)


async def seqs(replica: Replica, *, first: Seq = 0, before: Seq | None = None, deadline: Deadline) -> list[Seq]:
    """Return the seqs from `first` on and `before` another one that have a commit record, oldest first."""
    found: list[Seq] = []
    after = layout.commit(replica.project, first - 1) if first > 0 else ""
    async with aclosing(replica.store.list(layout.commits(replica.project), after=after, deadline=deadline)) as listing:
        async for info in listing:
            seq = layout.seq_of_commit(info.key)
            if seq is None:
                continue
            if before is not None and seq >= before:
                break
            found.append(seq)
    return found


async def newest_seqs(replica: Replica, count: int, before: Seq, *, deadline: Deadline) -> list[Seq]:
    """Return the newest `count` seqs before another one that have a commit record, the newest first.

    Lists no more than it needs where numbers are dense.
    """
    span = count + count // 4
    while True:
        first = max(0, before - span)
        found = await seqs(replica, first=first, before=before, deadline=deadline)
        if len(found) >= count or first == 0:
            return found[::-1][:count]
        span *= 8


async def _is_stored(replica: Replica, head: SnapshotRecord, *, deadline: Deadline) -> bool:
    """Return whether the store has the head; write its record anew when that alone is damaged or lost."""
    try:
        found = await find_record(replica, head.seq, deadline=deadline)
    except ObjectNotEncryptedError:
        raise
    except CorruptObjectError as error:
        log.warning("record of the head cannot be read, written anew", project=replica.name, reason=error.message)
    else:
        if found is not None:
            return found.nonce == head.nonce
        # An empty commit has no object of its own: there its parent's record tells a lost record from a lost store.
        key = head.object.key if head.object else layout.commit(replica.project, head.parent_seq)
        if await replica.store.head(key, deadline=deadline) is None:
            return False
        log.warning("record of the head is lost, written anew", project=replica.name, seq=head.seq)
    await replica.store.put(layout.commit(replica.project, head.seq), encode(head), if_absent=False, deadline=deadline)
    return True


async def _move(replica: Replica, record: SnapshotRecord, *, revision: int, deadline: Deadline) -> KnownHead:
    try:
        moved = await replica.heads.move(
            replica.project,
            Head(record=record),
            revision=revision,
            nonce=lambda head: head.record.nonce,
            deadline=deadline,
        )
    except RevisionMovedError as error:
        entry = await replica.heads.get(replica.project, deadline=deadline)
        if entry is not None and entry.value.record.epoch > record.epoch:
            raise _stale(replica, record, entry.value.record) from error
        raise HeadMovedError(f"another node committed to {replica.name} during snapshot {record.seq}") from error
    return KnownHead(record, moved)


def _stale(replica: Replica, record: SnapshotRecord, winner: SnapshotRecord) -> StaleEpochError:
    return StaleEpochError(
        f"node {winner.node} is primary of {replica.name} now: epoch {winner.epoch}, not {record.epoch}"
    )


def _check_format(record: SnapshotRecord) -> None:
    if record.format > FORMAT:
        raise UnsupportedFormatError(
            f"snapshot {record.seq} was written in format {record.format}, this version reads {FORMAT}"
        )
    if record.format < FORMAT:
        raise UnsupportedFormatError(
            f"snapshot {record.seq} was written by an unreleased version, in format {record.format}",
            remedy=f"delete the objects below projects/{record.project}/, and the head with the command "
            f"`nats kv del {buckets.HEADS.name} {record.project}`; then run `membridge push`",
        )
