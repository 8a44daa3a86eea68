"""Which snapshots retention deletes. Pure: it looks at commit records and tags.

The head, every tagged snapshot and the chains that they are restored from always stay.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import pairwise

from membridge.commits import chain
from membridge.system import clock
from schemas.identity import Seq
from schemas.snapshot import SnapshotKind, SnapshotRecord

#: Seconds of an hour, a day, a week.
HOUR, DAY, WEEK = 3_600.0, 86_400.0, 604_800.0
#: What makes weeks begin on a Monday: the first of January 1970 was a Thursday.
_TO_MONDAY = 3 * DAY


@dataclass(frozen=True, slots=True)
class SnapshotPolicy:
    """Keep the newest `last` states, and the newest of each of so many hours, days and weeks that have one.

    The newest `recent` commits of the newest chain stay anyway: a node that is not farther behind reads what it lacks.
    """

    last: int = 30
    hourly: int = 24
    daily: int = 14
    weekly: int = 8
    recent: int = 512


def kept(records: Mapping[Seq, SnapshotRecord], tagged: Collection[Seq], policy: SnapshotPolicy) -> set[Seq]:
    """Return the seqs that the policy keeps: the head, tagged ones, and by count.

    Hours, days and weeks are those that have a snapshot, counted from the newest one: no clock is asked, so that a node
    whose clock is wrong deletes nothing. A commit that only brought an epoch does not count as a state.
    """
    if not records:
        return set()
    states = [seq for seq in sorted(records, reverse=True) if records[seq].kind is not SnapshotKind.EMPTY]
    stays = {max(records), *(records.keys() & set(tagged)), *states[: policy.last]}
    for count, span in ((policy.hourly, HOUR), (policy.daily, DAY), (policy.weekly, WEEK)):
        newest_of: dict[float, Seq] = {}
        for seq in states:
            slot = _slot(records[seq].created_at, span)
            if slot is not None and slot not in newest_of and len(newest_of) < count:
                newest_of[slot] = seq
        stays |= set(newest_of.values())
    return stays


def needed(
    records: Mapping[Seq, SnapshotRecord], stays: Collection[Seq], policy: SnapshotPolicy | None = None
) -> set[Seq]:
    """Return the seqs without which some of `stays` could not be restored, and the newest `recent` of the head's chain.

    What is left of a chain is one line: each commit has a step from the one before it, which a mirror can follow, and
    each of `stays` is reached from its full snapshot by the widest rollups.
    """
    if not records:
        return set()
    head = records[max(records)]
    recent = head.seq - (policy or SnapshotPolicy()).recent
    found = set(stays) | {seq for seq, one in records.items() if seq > recent and one.full_seq == head.full_seq}
    for stay in stays:
        found |= _way(records, stay, records[stay].full_seq)
    line = sorted(found)
    for before, seq in pairwise(line):
        if records[before].full_seq == records[seq].full_seq:
            found |= _way(records, seq, before)
    return found


def _way(records: Mapping[Seq, SnapshotRecord], seq: Seq, floor: Seq) -> set[Seq]:
    """Return the commits over which `seq` is reached from `floor`; all between them if the chain has a hole."""
    way = chain.descent(records[seq], floor, records)
    if way.why:
        return {number for number in range(floor, seq + 1) if number in records}
    return {way.begins.seq, *(step.record.seq for step in way.steps)}


def _slot(created_at: str, span: float) -> float | None:
    at = clock.known(created_at)
    if at is None:
        return None
    return (at.timestamp() + (_TO_MONDAY if span == WEEK else 0.0)) // span
