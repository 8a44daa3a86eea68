"""Retention of snapshots: bounds hold, the newest stays, and what stays can be restored."""

from datetime import UTC, datetime, timedelta

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from membridge.commits.retention import SnapshotPolicy, kept, needed
from schemas.identity import NodeId, canonical_id
from schemas.snapshot import SnapshotKind, SnapshotRecord

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
            full_seq=full, node=NodeId("a"), nonce=f"{seq}",
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
