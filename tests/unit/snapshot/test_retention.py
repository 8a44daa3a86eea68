"""Retention of backups and snapshots: bounds hold, the newest stays, and what stays can be restored."""

from datetime import UTC, datetime, timedelta

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from membridge.snapshot.retention import DAY, BackupPolicy, Kept, SnapshotPolicy, expired, kept, needed
from schemas.identity import NodeId, canonical_id
from schemas.snapshot import SnapshotKind, SnapshotRecord

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


STATES = st.lists(st.tuples(st.sampled_from(list(SnapshotKind)), st.integers(0, 90 * 24)), min_size=1, max_size=60)
POLICIES = st.builds(
    SnapshotPolicy, last=st.integers(1, 9), hourly=st.integers(0, 9), daily=st.integers(0, 9), weekly=st.integers(0, 9)
)
BEGIN = datetime(2026, 1, 5, tzinfo=UTC)


def line(states: list[tuple[SnapshotKind, int]]) -> dict[int, SnapshotRecord]:
    """Return commits of these kinds, so many hours after a Monday's midnight; the first is a full one."""
    records: dict[int, SnapshotRecord] = {}
    full = 1
    for seq, (kind, hours) in enumerate(states, start=1):
        real = SnapshotKind.FULL if seq == 1 else kind
        full = seq if real is SnapshotKind.FULL else full
        records[seq] = SnapshotRecord(
            project=canonical_id("p"), seq=seq, epoch=1, parent_seq=seq - 1, kind=real, sha256=f"{seq:064x}",
            page_size=4096, page_count=1, full_seq=full, node=NodeId("a"), nonce=f"{seq}",
            created_at=(BEGIN + timedelta(hours=hours)).isoformat(),
        )  # fmt: skip
    return records


@settings(deadline=None)
@given(states=STATES, policy=POLICIES, tagged=st.sets(st.integers(1, 70), max_size=4))
def test_what_is_kept_can_be_restored_and_is_bounded(
    states: list[tuple[SnapshotKind, int]], policy: SnapshotPolicy, tagged: set[int]
) -> None:
    records = line(states)
    stays = kept(records, tagged, policy)
    assert {max(records), *(tagged & records.keys())} <= stays <= records.keys()
    assert len(stays) <= 1 + len(tagged) + policy.last + policy.hourly + policy.daily + policy.weekly
    wanted = needed(records, stays)
    for seq in stays:
        assert set(range(records[seq].full_seq, seq + 1)) <= wanted
        assert records[records[seq].full_seq].kind is SnapshotKind.FULL
    # What is left is kept again: collecting twice is collecting once.
    left = {seq: records[seq] for seq in wanted}
    assert stays <= kept(left, tagged, policy)


def test_of_each_hour_day_and_week_the_newest_stays() -> None:
    full = SnapshotKind.FULL
    records = line([(full, hour) for hour in (0, 0, 1, 23, 24, 30, 7 * 24, 7 * 24 + 1, 7 * 24 + 1)])
    assert kept(records, (), SnapshotPolicy(1, 2, 0, 0)) == {9, 7}
    assert kept(records, (), SnapshotPolicy(1, 0, 3, 0)) == {9, 6, 4}
    assert kept(records, (), SnapshotPolicy(1, 0, 0, 5)) == {9, 6}
    assert kept(records, (), SnapshotPolicy(2, 0, 0, 0)) == {9, 8}


def test_a_commit_that_only_brought_an_epoch_takes_no_place() -> None:
    empty, full = SnapshotKind.EMPTY, SnapshotKind.FULL
    records = line([(full, 0), (full, 1), (empty, 2), (empty, 3)])
    stays = kept(records, (), SnapshotPolicy(2, 0, 0, 0))
    assert stays == {1, 2, 4}
    assert needed(records, stays) == {1, 2, 3, 4}


def test_an_instant_that_cannot_be_read_takes_no_slot() -> None:
    records = line([(SnapshotKind.FULL, 0), (SnapshotKind.FULL, 1)])
    records[1] = msgspec.structs.replace(records[1], created_at="yesterday")
    assert kept(records, (), SnapshotPolicy(1, 5, 5, 5)) == {2}
    assert kept({}, (), SnapshotPolicy()) == set()
