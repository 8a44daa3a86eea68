"""Which backups and which snapshots may go.

Pure: `expired` looks at the ages and sizes of backups, `kept` and `needed` at commit records. The newest backup always
stays; so does the head, every tagged snapshot, and what any of these is restored from.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from schemas.identity import Seq
from schemas.snapshot import SnapshotKind, SnapshotRecord

#: Seconds of an hour, a day, a week.
HOUR, DAY, WEEK = 3_600.0, 86_400.0, 604_800.0
#: What makes weeks begin on a Monday: the first of January 1970 was a Thursday.
_TO_MONDAY = 3 * DAY


@dataclass(frozen=True, slots=True)
class BackupPolicy:
    """Keep backups for `max_days`, and never more than `max_count` of them, `max_bytes` or `max_disk_percent`.

    The share is that of the room which the backups and the free part of their disk have together.
    """

    max_days: int = 14
    max_count: int = 50
    max_bytes: int = 4 << 30
    max_disk_percent: float = 25.0


@dataclass(frozen=True, slots=True)
class Kept:
    """A backup: its name, its age in seconds, its size, and the group of which it is one, its day and reason."""

    name: str
    age: float
    size: int = 0
    group: str = ""


def expired(backups: Sequence[Kept], policy: BackupPolicy, *, free_bytes: int) -> list[str]:
    """Return the names of the backups that the policy no longer keeps.

    Beyond a bound the oldest go first, but the newest of each group only when nothing else is left, and the newest of
    all never: what was before an accident must survive many backups after it.
    """
    newest_first = sorted(backups, key=lambda kept: (kept.age, kept.name))
    young = [kept for place, kept in enumerate(newest_first) if place == 0 or kept.age <= policy.max_days * DAY]
    newest_of_group: dict[str, str] = {}
    for one in young:
        newest_of_group.setdefault(one.group, one.name)
    room = sum(one.size for one in backups) + max(0, free_bytes)
    bound = min(float(policy.max_bytes), room * policy.max_disk_percent / 100)
    count, size = len(young), sum(one.size for one in young)
    stays = {one.name for one in young}
    last_to_go = set(newest_of_group.values())
    for one in sorted(young[:0:-1], key=lambda one: one.name in last_to_go):
        if count <= policy.max_count and size <= bound:
            break
        stays.discard(one.name)
        count, size = count - 1, size - one.size
    return [one.name for one in reversed(newest_first) if one.name not in stays]


@dataclass(frozen=True, slots=True)
class SnapshotPolicy:
    """Keep the newest `last` states, and the newest of each of so many hours, days and weeks that have one."""

    last: int = 30
    hourly: int = 24
    daily: int = 14
    weekly: int = 8


def kept(records: Mapping[Seq, SnapshotRecord], tagged: Collection[Seq], policy: SnapshotPolicy) -> set[Seq]:
    """Return the seqs that the policy keeps: the head, tagged ones, and by count.

    Hours, days and weeks are those that have a snapshot, counted from the newest one: no clock is asked, so that a node
    whose clock is wrong deletes nothing. A commit that only brought an epoch is no state of its own.
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


def needed(records: Mapping[Seq, SnapshotRecord], stays: Collection[Seq]) -> set[Seq]:
    """Return the seqs without which some of `stays` could not be restored: each chain from its full snapshot on."""
    return {seq for stay in stays for seq in range(records[stay].full_seq, stay + 1) if seq in records} | set(stays)


def _slot(created_at: str, span: float) -> float | None:
    try:
        at = datetime.fromisoformat(created_at)
    except ValueError:
        return None
    seconds = (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    return (seconds + (_TO_MONDAY if span == WEEK else 0.0)) // span
