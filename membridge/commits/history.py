"""The commits that the store keeps, and the one that a name stands for.

Retention leaves gaps between the numbers: list the store, never count through a range; and never all of it.
"""

from datetime import datetime

from membridge.aio.deadline import Deadline
from membridge.commits import heads, layout, tags
from membridge.commits.replica import Replica
from membridge.errors import InvalidRequestError, NotFoundError
from membridge.system import clock
from schemas.commits import HistoryReply, HistoryRequest, RowChanges
from schemas.snapshot import SnapshotRecord

#: The name of the empty state before the first snapshot.
NOTHING = "0"
#: Commits that are read at once, from the newest back, to find that of an instant.
_LOOKED_AT = 64


async def read(replica: Replica, request: HistoryRequest, *, deadline: Deadline) -> HistoryReply:
    """Return the commits that `request` asks for, newest first."""
    known = await heads.read(replica, deadline=deadline)
    if known is None:
        return HistoryReply()
    head = known.record
    # What lies beyond the head is settled by the next push; the head itself may be in KV alone.
    before = head.seq + 1 if request.before is None else min(request.before, head.seq + 1)
    wanted = [head.seq] if before > head.seq else []
    # One more: the changes of the last one are counted against it.
    wanted += await heads.newest_seqs(replica, request.limit + 1, min(before, head.seq), deadline=deadline)
    found = await heads.fetch_records(replica, {*wanted} - {head.seq}, deadline=deadline)
    found[head.seq] = head
    records = [found[seq] for seq in wanted[: request.limit] if seq in found]
    named = {record.seq for record in records}
    return HistoryReply(
        records=records,
        changes=[change for record in records if (change := _changes(record, found.get(record.parent_seq)))],
        tags=[tag for tag in await tags.listed(replica, deadline=deadline) if tag.seq in named],
    )


async def resolve(replica: Replica, state: str, *, deadline: Deadline) -> SnapshotRecord | None:
    """Return the commit that `state` names, None for `0`.

    Errors: NotFoundError when there is none or it is not kept, InvalidRequestError for what names nothing.
    """
    if state == NOTHING:
        return None
    known = await heads.read(replica, deadline=deadline)
    if known is None:
        raise NotFoundError(f"project {replica.name} has no snapshot yet", remedy="run `membridge push`")
    if state == "head":
        return known.record
    if state.startswith("@"):
        return await _newest_at(replica, known.record, _instant(state[1:]), deadline=deadline)
    seq = int(state) if state.isdecimal() and len(state) <= layout.SEQ_DIGITS else None
    if seq is None:
        seq = (await tags.find(replica, state, deadline=deadline)).seq
    if seq == known.record.seq:
        return known.record
    record = await heads.find_record(replica, seq, deadline=deadline) if seq < known.record.seq else None
    if record is None:
        raise NotFoundError(f"{replica.name} has no snapshot {seq}, or not any more", remedy="run `membridge history`")
    return record


def _instant(text: str) -> datetime:
    at = clock.known(text)
    if at is None:
        raise InvalidRequestError(
            f"{text!r} is not a time with a zone", remedy="write it as 2026-01-31T18:00:00Z", field="state"
        )
    return at


async def _newest_at(replica: Replica, head: SnapshotRecord, at: datetime, *, deadline: Deadline) -> SnapshotRecord:
    """Return the newest commit that is not younger than `at`; clocks of nodes differ, so the seq decides the order."""
    wanted, records = [head.seq], {head.seq: head}
    while wanted:
        for seq in sorted(records, reverse=True):
            made = clock.known(records[seq].created_at)
            if made is not None and made <= at:
                return records[seq]
        wanted = await heads.newest_seqs(replica, _LOOKED_AT, wanted[-1], deadline=deadline)
        records = await heads.fetch_records(replica, wanted, deadline=deadline)
    raise NotFoundError(
        f"{replica.name} has no snapshot from {at.isoformat()} or before", remedy="run `membridge history`"
    )


def _changes(record: SnapshotRecord, parent: SnapshotRecord | None) -> RowChanges | None:
    if record.seq > 1 and (parent is None or parent.sha256 != record.parent_sha256):
        return None
    before = parent.rows if parent is not None else {}
    tables = {name: record.rows.get(name, 0) - before.get(name, 0) for name in {**before, **record.rows}}
    return RowChanges(seq=record.seq, tables={name: change for name, change in tables.items() if change})
