"""Which commits lead to the head, and when a new chain begins.

Pure: looks at commit records and a mirror's position and names what to fetch. It never trusts a position whose sums
disagree with the records: the plan then starts at a full snapshot.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from schemas.identity import Epoch, Seq
from schemas.snapshot import SnapshotKind, SnapshotObject, SnapshotRecord

#: A commit whose number is a multiple of 8 has a rollup of the commits since the multiple before it, one whose number
#: is a multiple of 64 another one, and so on for so many levels.
STRIDE, LEVELS = 8, 6
#: The commits of a rollup of each level.
WIDTHS = tuple(STRIDE**level for level in range(1, LEVELS + 1))


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

    max_deltas: int = 10_000
    max_percent: float = 100.0


@dataclass(frozen=True, slots=True)
class Step:
    """One object that leads to the state of `record`: its full, its delta, or one of its rollups.

    None for an empty commit, which has its parent's state.
    """

    record: SnapshotRecord
    object: SnapshotObject | None


@dataclass(frozen=True, slots=True)
class Descent:
    """How a commit descends from `begins`: the steps from there, oldest first.

    `why` says what is wrong with the chain when it should lead farther back.
    """

    begins: SnapshotRecord
    steps: tuple[Step, ...]
    why: str = ""


@dataclass(frozen=True, slots=True)
class FetchPlan:
    """The steps that turn a mirror into the head, oldest first.

    The first one is a full snapshot when `from_full`. `descends` says that the head descends from the mirror, so that
    the mirror is the base of a merge: what the head lacks of it was deleted.
    """

    steps: tuple[Step, ...]
    from_full: bool
    descends: bool


def descent(
    last: SnapshotRecord,
    floor: Seq,
    records: Mapping[Seq, SnapshotRecord],
    *,
    rollups: bool = True,
    lacked: set[Seq] | None = None,
) -> Descent:
    """Return the way to `last` from the commit `floor`, or from as near behind it as the chain leads.

    Takes the widest step at each commit, so that 4,096 commits are at most 28 steps. A commit whose record is not
    among `records` is stepped over where a rollup or its delta allows it; `lacked` gets the numbers that were missed.
    """
    at, steps, why = last, list[Step](), ""
    while at.seq > floor and at.kind is not SnapshotKind.FULL and not why:
        for rollup in sorted(at.rollups, key=lambda one: one.after_seq) if rollups else ():
            start = records.get(rollup.after_seq)
            if start is None and lacked is not None and rollup.after_seq >= floor:
                lacked.add(rollup.after_seq)
            if start is not None and floor <= start.seq < at.seq and start.sha256 == rollup.after_sha256:
                steps.append(Step(at, rollup.object))
                at = start
                break
        else:
            if at.parent_seq < floor:
                break
            parent = records.get(at.parent_seq)
            if parent is None and lacked is not None:
                lacked.add(at.parent_seq)
            why = _unlinked(at, parent)
            if parent is not None and not why:
                steps.append(Step(at, at.object))
                at = parent
    return Descent(at, tuple(steps[::-1]), why)


def likely(last: Seq, floor: Seq, full: Seq) -> list[Seq]:
    """Return the commits that `descent` will want to see if no number came to nothing: read at once, they save time."""
    found: list[Seq] = []
    while last > floor:
        found.append(last)
        starts = [last - 1, *(max(last - width, full) for width in WIDTHS if last % width == 0)]
        # The first rollup of a chain begins at its full, wherever that is.
        last = min(start for start in starts if start >= floor)
    return [*found, floor]


def plan(
    head: SnapshotRecord,
    position: Position | None,
    records: Mapping[Seq, SnapshotRecord],
    pruned: Position | None = None,
    *,
    rollups: bool = True,
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
            found = descent(head, position.seq, records, rollups=rollups)
            if found.begins.seq == position.seq:
                return FetchPlan(found.steps, from_full=False, descends=True)
            if pruned != position:
                if found.why:
                    raise BrokenChainError(found.why)
                # The mirror is at a commit that lost the race for the head.
                return None
    found = descent(head, head.full_seq, records, rollups=rollups)
    if found.why:
        raise BrokenChainError(found.why)
    if found.begins.seq != head.full_seq or found.begins.kind is not SnapshotKind.FULL:
        raise BrokenChainError(f"seq {head.full_seq} is not a full snapshot")
    steps = Step(found.begins, found.begins.object), *found.steps
    return FetchPlan(steps, from_full=True, descends=position is not None)


def steps_from(
    record: SnapshotRecord, at: Seq | None, records: Mapping[Seq, SnapshotRecord]
) -> tuple[Step, ...] | None:
    """Return the step from the commit `at` to `record`, or all of them from its full snapshot; None if none lead there.

    A commit's own object comes before its rollups.
    """
    if at is not None and at in records and record.kind is not SnapshotKind.FULL:
        if record.parent_seq == at:
            return (Step(record, record.object),)
        for rollup in record.rollups:
            if rollup.after_seq == at:
                return (Step(record, rollup.object),)
    way = descent(record, record.full_seq, records)
    if way.why or way.begins.kind is not SnapshotKind.FULL:
        return None
    return Step(way.begins, way.begins.object), *way.steps


def flaw(record: SnapshotRecord, records: Mapping[Seq, SnapshotRecord]) -> str:
    """Return how a record contradicts those that it builds on, "" when it does not.

    Retention may have deleted the parent of a full snapshot, and of one that has a rollup.
    """
    parent, full = records.get(record.parent_seq), record.kind is SnapshotKind.FULL
    starts = [start for rollup in record.rollups if (start := records.get(rollup.after_seq)) is not None]
    named = {rollup.after_seq: rollup.after_sha256 for rollup in record.rollups}
    flaws = {
        "it names no object": record.object is None and record.kind is not SnapshotKind.EMPTY,
        "it is empty and names an object": record.object is not None and record.kind is SnapshotKind.EMPTY,
        "it is a full snapshot and has rollups": full and bool(record.rollups),
        f"its parent, seq {record.parent_seq}, is missing": parent is None and not starts and not full,
    }
    if parent is not None:
        flaws |= {
            "it is of another chain than its parent": not full and parent.full_seq != record.full_seq,
            f"it does not build on seq {parent.seq}": record.parent_sha256 not in {parent.sha256, None},
            f"its epoch is older than that of seq {parent.seq}": record.epoch < parent.epoch,
        }
    for start in starts:
        flaws[f"its rollup from seq {start.seq} does not begin at that"] = (
            start.seq >= record.seq or start.sha256 != named[start.seq] or start.full_seq != record.full_seq
        )
    return next((words for words, there in flaws.items() if there), "")


def hole(head: SnapshotRecord, records: Mapping[Seq, SnapshotRecord]) -> Seq | None:
    """Return the number of the newest record that the head's chain lacks, None when it leads to its full snapshot."""
    if head.seq not in records:
        return head.seq
    found = descent(head, head.full_seq, records)
    return None if found.begins.seq == head.full_seq else found.begins.parent_seq


def stepped_over(records: Iterable[SnapshotRecord]) -> set[Seq]:
    """Return the numbers that commits skipped after their parents: records under them never became the head."""
    return {seq for record in records for seq in range(record.parent_seq + 1, record.seq)}


def starts_new_chain(head: SnapshotRecord, delta_bytes: int, policy: ChainPolicy) -> bool:
    """Return whether the next snapshot should be a full one rather than a delta of `delta_bytes`."""
    deltas = head.seq - head.full_seq + 1
    heavy = (head.chain_bytes + delta_bytes) * 100 > head.full_bytes * policy.max_percent
    return deltas > policy.max_deltas or heavy


def _unlinked(child: SnapshotRecord, parent: SnapshotRecord | None) -> str:
    """Return why a delta or an empty commit does not build on `parent`, "" when it does."""
    if parent is None:
        return f"the commit record of seq {child.parent_seq} is missing"
    if parent.seq >= child.seq:
        return f"seq {child.seq} names a parent that is not older"
    if child.parent_sha256 != parent.sha256:
        return f"seq {child.seq} does not build on seq {parent.seq}"
    if child.epoch < parent.epoch:
        return f"seq {child.seq} has an older epoch than seq {parent.seq}"
    return ""
