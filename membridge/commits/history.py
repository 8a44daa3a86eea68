"""The commits that the store keeps, and the one that a name stands for.

Retention leaves gaps between the numbers: list the store, never count through a range.
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


async def read(replica: Replica, request: HistoryRequest, *, deadline: Deadline) -> HistoryReply:
    """Return the commits that `request` asks for, newest first."""
    known = await heads.read(replica, deadline=deadline)
    if known is None:
        return HistoryReply()
    head = known.record
    # What lies beyond the head is settled by the next push; the head itself may be in KV alone.
    there = {seq for seq in await heads.seqs(replica, deadline=deadline) if seq < head.seq} | {head.seq}
    wanted = sorted((seq for seq in there if request.before is None or seq < request.before), reverse=True)
    wanted = wanted[: request.limit]
    parents = {seq - 1 for seq in wanted} & there
    found = await heads.fetch_records(replica, ({*wanted} | parents) - {head.seq}, deadline=deadline)
    found[head.seq] = head
    records = [found[seq] for seq in wanted if seq in found]
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
    found = await heads.fetch_records(
        replica, [seq for seq in await heads.seqs(replica, deadline=deadline) if seq < head.seq], deadline=deadline
    )
    records = [head, *(found[seq] for seq in sorted(found, reverse=True))]
    for record in records:
        made = clock.known(record.created_at)
        if made is not None and made <= at:
            return record
    raise NotFoundError(
        f"{replica.name} has no snapshot from {at.isoformat()} or before", remedy="run `membridge history`"
    )


def _changes(record: SnapshotRecord, parent: SnapshotRecord | None) -> RowChanges | None:
    if record.seq > 1 and (parent is None or parent.sha256 != record.parent_sha256):
        return None
    before = parent.rows if parent is not None else {}
    tables = {name: record.rows.get(name, 0) - before.get(name, 0) for name in {**before, **record.rows}}
    return RowChanges(seq=record.seq, tables={name: change for name, change in tables.items() if change})
