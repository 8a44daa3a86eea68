"""Which backups retention deletes. Pure: it looks at their ages and sizes. The newest backup always stays."""

from collections.abc import Sequence
from dataclasses import dataclass

from membridge.commits.retention import DAY


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
