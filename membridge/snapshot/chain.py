"""Which commits lead to the head, and when a new chain begins.

Pure: looks at commit records and a mirror's position and names what to fetch. It never trusts a position whose sums
disagree with the records: then the way starts at a full snapshot again.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

from schemas.identity import Epoch, Seq
from schemas.snapshot import SnapshotKind, SnapshotRecord


class BrokenChainError(ValueError):
    """Records that do not lead from a full snapshot to the head; the message names the gap."""


@dataclass(frozen=True, slots=True)
class Position:
    """What a mirror is: the seq and epoch of its commit, and the sha256 of its file."""

    seq: Seq
    epoch: Epoch
    sha256: str


@dataclass(frozen=True, slots=True)
class ChainPolicy:
    """When a new full is taken: after `max_deltas`, or when the deltas weigh `max_percent` of the full."""

    max_deltas: int = 50
    max_percent: float = 100.0


def records_needed(head: SnapshotRecord, position: Position | None) -> range:
    """Return the seqs whose commit records `plan` wants to see: from the mirror's, or from the chain's full."""
    if position is not None and head.full_seq <= position.seq <= head.seq:
        return range(position.seq, head.seq + 1)
    return range(head.full_seq, head.seq + 1)


def plan(
    head: SnapshotRecord, position: Position | None, records: Mapping[Seq, SnapshotRecord]
) -> list[SnapshotRecord] | None:
    """Return the commits to apply to the mirror, oldest first; the first is a full one when the mirror is of no use.

    Returns None when more records are needed than a usable mirror would have wanted: the caller asks again with
    `position=None`. Raises BrokenChainError when the records are no chain.
    """
    if position is not None and head.full_seq <= position.seq <= head.seq:
        known = records.get(position.seq)
        if known is None or (known.sha256, known.epoch) != (position.sha256, position.epoch):
            return None
        return _linked([known, *_between(records, position.seq + 1, head.seq)])[1:]
    way = _linked(_between(records, head.full_seq, head.seq))
    if not way or way[0].kind is not SnapshotKind.FULL:
        raise BrokenChainError(f"seq {head.full_seq} is no full snapshot")
    return way


def starts_new_chain(head: SnapshotRecord, delta_bytes: int, policy: ChainPolicy) -> bool:
    """Return whether the next snapshot should be a full one rather than a delta of `delta_bytes`."""
    deltas = head.seq - head.full_seq + 1
    heavy = (head.chain_bytes + delta_bytes) * 100 > head.full_bytes * policy.max_percent
    return deltas > policy.max_deltas or heavy


def _between(records: Mapping[Seq, SnapshotRecord], first: Seq, last: Seq) -> list[SnapshotRecord]:
    missing = [seq for seq in range(first, last + 1) if seq not in records]
    if missing:
        raise BrokenChainError(f"the commit record of seq {missing[0]} is missing")
    return [records[seq] for seq in range(first, last + 1)]


def _linked(way: list[SnapshotRecord]) -> list[SnapshotRecord]:
    for parent, child in pairwise(way):
        if child.kind is not SnapshotKind.FULL and child.parent_sha256 != parent.sha256:
            raise BrokenChainError(f"seq {child.seq} does not build on seq {parent.seq}")
        if child.epoch < parent.epoch:
            raise BrokenChainError(f"seq {child.seq} has an older epoch than seq {parent.seq}")
    return way
