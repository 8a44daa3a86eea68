"""Which backups retention deletes. Pure: it looks at their ages and sizes.

The newest backup always stays, and so does the newest full copy, which a damaged database is restored from. A full copy
that an older backup needs stays as long as that one.
"""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from membridge.commits.retention import DAY

#: Of so many backups one more goes when the count is reached, so that not every write deletes one.
_SLACK = 20


@dataclass(frozen=True, slots=True)
class BackupPolicy:
    """Keep backups for `max_days`, and never more than `max_count` of them, `max_bytes` or `max_disk_percent`.

    The share is that of the room which the backups and the free part of their disk have together.
    """

    max_days: int = 14
    max_count: int = 1_000
    max_bytes: int = 4 << 30
    max_disk_percent: float = 25.0


@dataclass(frozen=True, slots=True)
class Kept:
    """A backup: its name, its age in seconds, the bytes of its full copy and of its undo record, 0 for none.

    `group` is its day and reason. `leads_on`: its record leads to the state of the next newer backup, so that this one
    can be restored from there.
    """

    name: str
    age: float
    full: int = 0
    undo: int = 0
    group: str = ""
    leads_on: bool = False


@dataclass(slots=True)
class Plan:
    """What goes: whole backups, full copies, undo records; each by the name of its backup."""

    backups: set[str] = field(default_factory=set[str])
    full_copies: set[str] = field(default_factory=set[str])
    records: set[str] = field(default_factory=set[str])


def is_within(backups: Sequence[Kept], policy: BackupPolicy, *, free_bytes: int) -> bool:
    """Whether retention has nothing to delete, which is known without looking at what the records lead to."""
    size = sum(one.full + one.undo for one in backups)
    return (
        all(one.age <= policy.max_days * DAY for one in backups)
        and len(backups) <= policy.max_count
        and size <= _bound(backups, policy, free_bytes)
    )


def plan(backups: Sequence[Kept], policy: BackupPolicy, *, free_bytes: int) -> Plan:
    """Return what the policy no longer keeps of backups, which come oldest first.

    Too much space: older full copies go first, those that no backup needs; then the oldest backups. Too many: the
    oldest go first, but the newest of each group only when nothing else is left: what was before an accident must
    survive many backups after it.
    """
    found = Plan()
    if not backups:
        return found
    stays = {backups[-1].name} | {one.name for one in [one for one in backups if one.full][-1:]}
    found.backups |= {one.name for one in backups if one.age > policy.max_days * DAY} - stays
    _for_space(found, backups, stays, _bound(backups, policy, free_bytes))
    _for_count(found, backups, stays, policy.max_count)
    return found


def _bound(backups: Sequence[Kept], policy: BackupPolicy, free_bytes: int) -> float:
    room = sum(one.full + one.undo for one in backups) + max(0, free_bytes)
    return min(float(policy.max_bytes), room * policy.max_disk_percent / 100)


def _for_space(found: Plan, backups: Sequence[Kept], stays: AbstractSet[str], bound: float) -> None:
    left = [one for one in backups if one.name not in found.backups]
    size = sum(one.full + one.undo for one in left)
    for one in _spare_copies(left, stays):
        if size <= bound:
            return
        found.full_copies.add(one.name)
        size -= one.full
    for one in left[:-1]:
        if size <= bound:
            return
        if one.name in stays:
            # The newest full copy stays; without its record nothing older hangs on what comes after it.
            found.records.add(one.name)
            size -= one.undo
        else:
            found.backups.add(one.name)
            size -= one.undo + (0 if one.name in found.full_copies else one.full)


def _spare_copies(left: Sequence[Kept], stays: AbstractSet[str]) -> list[Kept]:
    """Return the backups, oldest first, whose full copy a newer one makes up for by the records between."""
    spare: list[Kept] = []
    reached = False
    for one in reversed(left):
        reached = reached and one.leads_on
        if one.full and reached and one.name not in stays:
            spare.append(one)
        reached = reached or bool(one.full)
    return spare[::-1]


def _for_count(found: Plan, backups: Sequence[Kept], stays: AbstractSet[str], most: int) -> None:
    left = [one for one in backups if one.name not in found.backups]
    over = len(left) - most
    if over <= 0:
        return
    over += most // _SLACK
    last_to_go = set({one.group: one.name for one in left}.values())
    thinned = sorted(left, key=lambda one: one.name in last_to_go)
    # Those that others are restored from only if nothing else is left, and then with the older ones.
    for candidates, spares in ((thinned, True), (left, False)):
        for one in candidates:
            if over <= 0:
                return
            if one.name in stays | found.backups or (spares and one.name in _needed(left, found)):
                continue
            found.backups.add(one.name)
            over -= 1


def _needed(left: Sequence[Kept], found: Plan) -> set[str]:
    """Return the backups whose full copy an older one is restored from."""
    needed: set[str] = set()
    hanging = False
    for one in left:
        if one.name in found.backups:
            continue
        has_copy = one.full and one.name not in found.full_copies
        if has_copy and hanging:
            needed.add(one.name)
        hanging = one.leads_on and not has_copy
    return needed
