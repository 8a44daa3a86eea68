"""Retention of backups: bounds hold, and the newest stays."""

from hypothesis import given
from hypothesis import strategies as st

from membridge.snapshot.backup_retention import DAY, BackupPolicy, Kept, expired

BACKUPS = st.lists(
    st.builds(
        lambda age, size, reason: (age, size, f"{int(age // DAY)} {reason}"),
        st.floats(0, 60 * DAY),
        st.integers(0, 400),
        st.sampled_from(["merge", "replace", "restore"]),
    ),
    max_size=80,
)
BACKUP_POLICIES = st.builds(
    BackupPolicy,
    max_days=st.integers(1, 30),
    max_count=st.integers(1, 60),
    max_bytes=st.integers(1, 10_000),
    max_disk_percent=st.floats(0, 100),
)


@given(found=BACKUPS, policy=BACKUP_POLICIES, free=st.integers(0, 20_000))
def test_what_stays_is_young_and_not_too_much_and_includes_the_newest(
    found: list[tuple[float, int, str]], policy: BackupPolicy, free: int
) -> None:
    backups = [Kept(f"{place:03d}", *one) for place, one in enumerate(found)]
    gone = expired(backups, policy, free_bytes=free)
    stays = [backup for backup in backups if backup.name not in gone]
    room = sum(backup.size for backup in backups) + free
    size = sum(backup.size for backup in stays)
    assert sum(backup.age > policy.max_days * DAY for backup in stays) <= 1
    assert len(stays) <= policy.max_count
    assert len(stays) <= 1 or size <= min(policy.max_bytes, room * policy.max_disk_percent / 100)
    if backups:
        assert min(backups, key=lambda backup: (backup.age, backup.name)) in stays
    # One of each day and reason that is young enough, as long as something else could go.
    young = [backup for backup in backups if backup.age <= policy.max_days * DAY]
    missing = {backup.group for backup in young} - {backup.group for backup in stays}
    assert not missing or len({backup.group for backup in stays}) >= len(stays) - 1
    assert expired(stays, policy, free_bytes=free + room - free - size) == []


def test_a_day_of_many_backups_drives_out_none_of_the_days_before() -> None:
    busy = [Kept(f"today {n:02d}", float(n), 1, "today merge") for n in range(60)]
    before = [Kept(f"{n} days ago", n * DAY, 1, f"{n} merge") for n in range(1, 10)]
    replaced = Kept("replaced", 5 * DAY, 1, "5 replace")
    gone = expired([*busy, *before, replaced], BackupPolicy(14, 50), free_bytes=10**9)
    assert gone == [f"today {n:02d}" for n in range(59, 39, -1)]


def test_the_bounds_are_kept_whatever_is_protected() -> None:
    days = [Kept(f"{n}", n * DAY, 100, f"{n} merge") for n in range(10)]
    assert expired(days, BackupPolicy(max_bytes=300), free_bytes=10**9) == [f"{n}" for n in range(9, 2, -1)]
    assert expired(days, BackupPolicy(max_disk_percent=20.0), free_bytes=500) == [f"{n}" for n in range(9, 2, -1)]
    assert expired(days, BackupPolicy(max_bytes=1), free_bytes=0) == [f"{n}" for n in range(9, 0, -1)]


def test_the_oldest_goes_first() -> None:
    backups = [Kept("new", 1.0), Kept("old", 20 * DAY), Kept("older", 30 * DAY)]
    assert expired(backups, BackupPolicy(14, 50), free_bytes=1) == ["older", "old"]
