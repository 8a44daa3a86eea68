"""Retention of backups: bounds hold, the newest stays."""

from hypothesis import given
from hypothesis import strategies as st

from membridge.snapshot.retention import DAY, BackupPolicy, Kept, expired

AGES = st.lists(st.floats(0, 60 * DAY), max_size=80)


@given(ages=AGES, days=st.integers(1, 30), count=st.integers(1, 60))
def test_what_stays_is_young_and_not_too_much_and_includes_the_newest(ages: list[float], days: int, count: int) -> None:
    backups = [Kept(f"{place:03d}", age) for place, age in enumerate(ages)]
    gone = set(expired(backups, BackupPolicy(days, count)))
    stays = [backup for backup in backups if backup.name not in gone]
    assert len(stays) <= count
    assert sum(backup.age > days * DAY for backup in stays) <= 1
    if backups:
        assert min(backups, key=lambda backup: (backup.age, backup.name)) in stays


def test_the_oldest_goes_first() -> None:
    backups = [Kept("new", 1.0), Kept("old", 20 * DAY), Kept("older", 30 * DAY)]
    assert expired(backups, BackupPolicy(14, 50)) == ["older", "old"]
