"""Which commits lead to the head, and when a new chain begins.

Pure: looks at commit records and a mirror's position and names what to fetch. It never trusts a position whose sums
disagree with the records: the plan then starts at a full snapshot.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise

from schemas.identity import Epoch, Seq
from schemas.snapshot import SnapshotKind, SnapshotRecord


class BrokenChainError(ValueError):
    """The records do not lead from a full snapshot to the head; the message names the gap."""


@dataclass(frozen=True, slots=True)
class Position:
    """Which commit a mirror holds: its seq and epoch, and the sha256 of the file."""

    seq: Seq
    epoch: Epoch
    sha256: str


def went_back(head: SnapshotRecord, position: Position | None) -> bool:
    """Return whether a mirror has seen more than the head under no later epoch: the stores lost what came between."""
    return position is not None and head.epoch <= position.epoch and head.seq < position.seq


@dataclass(frozen=True, slots=True)
class ChainPolicy:
    """When a new full is taken: after `max_deltas`, or when the deltas weigh `max_percent` of the full."""

    max_deltas: int = 1_000
    max_percent: float = 100.0


@dataclass(frozen=True, slots=True)
class FetchPlan:
    """The commits that turn a mirror into the head, oldest first.

    The first one is a full snapshot when `from_full`. `descends` says that the head descends from the mirror, so that
    the mirror is the base of a merge: what the head lacks of it was deleted.
    """

    commits: tuple[SnapshotRecord, ...]
    from_full: bool
    descends: bool


def records_needed(head: SnapshotRecord, position: Position | None) -> list[Seq]:
    """Return the seqs whose commit records `plan` wants to see."""
    if position is None or position.seq > head.seq:
        return list(range(head.full_seq, head.seq + 1))
    if position.seq >= head.full_seq:
        return list(range(position.seq, head.seq + 1))
    return [position.seq, *range(head.full_seq, head.seq + 1)]


def plan(
    head: SnapshotRecord,
    position: Position | None,
    records: Mapping[Seq, SnapshotRecord],
    pruned: Position | None = None,
) -> FetchPlan | None:
    """Return the plan that brings the mirror at `position` to `head`.

    `pruned` is the tombstone of the mirror's commit when retention deleted its record. Returns None when the mirror
    does not match its record: call again with `position=None`. Raises BrokenChainError when the records do not link.
    """
    if position is not None:
        known = records.get(position.seq)
        was = pruned if known is None else Position(known.seq, known.epoch, known.sha256)
        if was != position:
            return None
        if known is not None and position.seq >= head.full_seq:
            descent = _descent(records, position.seq, head.seq)
            if descent[0].seq != position.seq:
                # The mirror is at a commit that lost the race for the head.
                return None
            return FetchPlan(tuple(_linked(descent)[1:]), from_full=False, descends=True)
    commits = _linked(_descent(records, head.full_seq, head.seq))
    if commits[0].seq != head.full_seq or commits[0].kind is not SnapshotKind.FULL:
        raise BrokenChainError(f"seq {head.full_seq} is not a full snapshot")
    return FetchPlan(tuple(commits), from_full=True, descends=position is not None)


def flaw(record: SnapshotRecord, parent: SnapshotRecord | None) -> str:
    """Return how a record contradicts its parent, "" when it does not.

    Retention may have deleted the parent of a full snapshot: then only the record itself is checked.
    """
    full = record.kind is SnapshotKind.FULL
    flaws = {
        "it names no object": record.object is None and record.kind is not SnapshotKind.EMPTY,
        "it is empty and names an object": record.object is not None and record.kind is SnapshotKind.EMPTY,
        f"its parent, seq {record.parent_seq}, is missing": parent is None and not full,
    }
    if parent is not None:
        flaws |= {
            "it is of another chain than its parent": not full and parent.full_seq != record.full_seq,
            f"it does not build on seq {parent.seq}": record.parent_sha256 not in {parent.sha256, None},
            f"its epoch is older than that of seq {parent.seq}": record.epoch < parent.epoch,
        }
    return next((words for words, there in flaws.items() if there), "")


def hole(head: SnapshotRecord, records: Mapping[Seq, SnapshotRecord]) -> Seq | None:
    """Return the number of the newest record that the head's chain lacks, None when it has all of them."""
    seq = head.seq
    while seq > head.full_seq and seq in records:
        seq = min(records[seq].parent_seq, seq - 1)
    return None if seq == head.full_seq and seq in records else seq


def stepped_over(records: Iterable[SnapshotRecord]) -> set[Seq]:
    """Return the numbers that commits skipped after their parents: records under them never became the head."""
    return {seq for record in records for seq in range(record.parent_seq + 1, record.seq)}


def starts_new_chain(head: SnapshotRecord, delta_bytes: int, policy: ChainPolicy) -> bool:
    """Return whether the next snapshot should be a full one rather than a delta of `delta_bytes`."""
    deltas = head.seq - head.full_seq + 1
    heavy = (head.chain_bytes + delta_bytes) * 100 > head.full_bytes * policy.max_percent
    return deltas > policy.max_deltas or heavy


def _descent(records: Mapping[Seq, SnapshotRecord], first: Seq, last: Seq) -> list[SnapshotRecord]:
    """Return `last` and its parents back to `first`, oldest first; numbers of records that came to nothing are gaps."""
    found: list[SnapshotRecord] = []
    seq, bound = last, last + 1
    while True:
        record = records.get(seq)
        if record is None:
            raise BrokenChainError(f"the commit record of seq {seq} is missing")
        found.append(record)
        if seq <= first:
            return found[::-1]
        seq, bound = record.parent_seq, seq
        if seq >= bound:
            raise BrokenChainError(f"seq {bound} names a parent that is not older")


def _linked(commits: list[SnapshotRecord]) -> list[SnapshotRecord]:
    for parent, child in pairwise(commits):
        if child.kind is not SnapshotKind.FULL and child.parent_sha256 != parent.sha256:
            raise BrokenChainError(f"seq {child.seq} does not build on seq {parent.seq}")
        if child.epoch < parent.epoch:
            raise BrokenChainError(f"seq {child.seq} has an older epoch than seq {parent.seq}")
    return commits
