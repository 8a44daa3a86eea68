"""Which backups may go.

Pure: `expired` looks at ages and the policy and names what to delete. The newest backup always stays, whatever its age:
it is the one that a person wants back.
"""

from collections.abc import Sequence
from dataclasses import dataclass

#: Seconds of a day.
DAY = 86_400.0


@dataclass(frozen=True, slots=True)
class BackupPolicy:
    """Keep backups for `max_days`, and never more than `max_count`."""

    max_days: int = 14
    max_count: int = 50


@dataclass(frozen=True, slots=True)
class Kept:
    """A backup: its name and its age in seconds."""

    name: str
    age: float


def expired(backups: Sequence[Kept], policy: BackupPolicy) -> list[str]:
    """Return the names of the backups that the policy no longer keeps, oldest first."""
    newest_first = sorted(backups, key=lambda kept: (kept.age, kept.name))
    gone = [
        kept.name
        for place, kept in enumerate(newest_first)
        if place > 0 and (place >= policy.max_count or kept.age > policy.max_days * DAY)
    ]
    return gone[::-1]
