"""Chains: the way to the head is found from any mirror, or refused, and never made of records that do not link."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from membridge.commits import chain
from membridge.commits.chain import BrokenChainError, ChainPolicy, Position
from schemas.identity import NodeId, canonical_id
from schemas.snapshot import SnapshotKind, SnapshotObject, SnapshotRecord

OBJECT = SnapshotObject(key="k", sha256="0" * 64, size_bytes=1)


def record(seq: int, kind: SnapshotKind, parent: SnapshotRecord | None, **changes: object) -> SnapshotRecord:
    full = kind is SnapshotKind.FULL or parent is None
    sha = parent.sha256 if kind is SnapshotKind.EMPTY and parent else f"{seq:064x}"
    values: dict[str, object] = {
        "project": canonical_id("p"),
        "seq": seq,
        "epoch": 1,
        "parent_seq": seq - 1,
        "parent_sha256": parent.sha256 if parent else None,
        "kind": kind,
        "sha256": sha,
        "full_seq": seq if full else parent.full_seq,
        "full_bytes": 1000 if full else parent.full_bytes,
        "chain_bytes": 0 if full else parent.chain_bytes + 10,
        "node": NodeId("a"),
        "created_at": "2026-01-01T00:00:00+00:00",
        "nonce": f"{seq}",
    }
    return SnapshotRecord(**(values | changes))


def line(kinds: list[SnapshotKind]) -> dict[int, SnapshotRecord]:
    records: dict[int, SnapshotRecord] = {}
    parent: SnapshotRecord | None = None
    for seq, kind in enumerate([SnapshotKind.FULL, *kinds], start=1):
        parent = records[seq] = record(seq, kind, parent)
    return records


def numbers(plan: chain.FetchPlan) -> list[int]:
    return [step.record.seq for step in plan.steps]


KINDS = st.lists(st.sampled_from(list(SnapshotKind)), max_size=20)


@given(kinds=KINDS, start=st.integers(0, 25))
def test_every_mirror_reaches_the_head(kinds: list[SnapshotKind], start: int) -> None:
    records = line(kinds)
    head = records[len(records)]
    at = records.get(start)
    position = Position(at.seq, at.epoch, at.sha256) if at else None
    plan = chain.plan(head, position, records)
    assert plan is not None
    assert plan.descends is (position is not None)
    sha = position.sha256 if position and not plan.from_full else None
    for commit in (step.record for step in plan.steps):
        assert commit.kind is SnapshotKind.FULL or commit.parent_sha256 == sha
        sha = commit.sha256
    assert sha == head.sha256


def test_a_mirror_that_disagrees_with_the_record_is_of_no_use() -> None:
    records = line([SnapshotKind.DELTA] * 3)
    head = records[4]
    assert chain.plan(head, Position(2, 1, "f" * 64), records) is None
    assert chain.plan(head, Position(2, 9, records[2].sha256), records) is None
    full_plan = chain.plan(head, None, records)
    assert full_plan is not None
    assert numbers(full_plan) == [1, 2, 3, 4]


def test_a_mirror_whose_record_is_gone_is_a_base_when_its_commit_is_remembered() -> None:
    records = line([SnapshotKind.DELTA, SnapshotKind.FULL, SnapshotKind.DELTA])
    head = records[4]
    gone = records.pop(2)
    position = Position(2, 1, gone.sha256)
    assert chain.plan(head, position, records) is None
    assert chain.plan(head, position, records, Position(2, 1, "e" * 64)) is None
    plan = chain.plan(head, position, records, position)
    assert plan is not None
    assert (plan.from_full, plan.descends, numbers(plan)) == (True, True, [3, 4])


@settings(deadline=None)
@given(kinds=KINDS)
def test_a_line_of_commits_has_no_flaw_and_every_change_of_a_link_is_one(kinds: list[SnapshotKind]) -> None:
    records = line(kinds)
    for seq, one in records.items():
        parent = {number: other for number, other in records.items() if number == seq - 1}
        whole = one if one.kind is SnapshotKind.EMPTY else msgspec.structs.replace(one, object=OBJECT)
        assert chain.flaw(whole, parent) == ""
        assert chain.flaw(msgspec.structs.replace(whole, object=None if whole.object else OBJECT), parent)
        if parent:
            assert chain.flaw(msgspec.structs.replace(whole, parent_sha256="e" * 64), parent)
            assert chain.flaw(msgspec.structs.replace(whole, epoch=0), parent)
        assert bool(chain.flaw(whole, {})) is (one.kind is not SnapshotKind.FULL)


def test_numbers_that_came_to_nothing_are_gaps_and_what_lost_the_race_is_no_parent() -> None:
    full = record(1, SnapshotKind.FULL, None)
    lost = record(2, SnapshotKind.DELTA, full)
    # The record of seq 3 cannot be read: it is not among those that are known.
    delta = record(4, SnapshotKind.DELTA, full, parent_seq=1)
    head = record(5, SnapshotKind.EMPTY, delta)
    records = {one.seq: one for one in (full, lost, delta, head)}
    from_full = chain.plan(head, None, records)
    assert from_full is not None
    assert numbers(from_full) == [1, 4, 5]
    from_base = chain.plan(head, Position(1, 1, full.sha256), records)
    assert from_base is not None
    assert numbers(from_base) == [4, 5]
    # A mirror of what lost the race is no base: its rows would count as deleted.
    assert chain.plan(head, Position(2, 1, lost.sha256), records) is None
    assert chain.hole(head, records) is None
    assert chain.hole(head, {seq: one for seq, one in records.items() if seq != 4}) == 4
    assert chain.hole(head, {seq: one for seq, one in records.items() if seq != 1}) == 1
    assert chain.stepped_over(records.values()) == {2, 3}


def test_a_parent_that_is_not_older_is_refused() -> None:
    full = record(1, SnapshotKind.FULL, None)
    head = record(3, SnapshotKind.DELTA, full, parent_seq=3)
    with pytest.raises(BrokenChainError, match="not older"):
        chain.plan(head, None, {1: full, 3: head})


def test_a_missing_record_is_named() -> None:
    records = line([SnapshotKind.DELTA] * 3)
    head = records[4]
    del records[3]
    with pytest.raises(BrokenChainError, match="seq 3 is missing"):
        chain.plan(head, None, records)


def test_records_that_do_not_link_are_refused() -> None:
    records = line([SnapshotKind.DELTA] * 2)
    records[2] = record(2, SnapshotKind.DELTA, records[1], sha256="e" * 64)
    with pytest.raises(BrokenChainError, match="does not build on"):
        chain.plan(records[3], None, records)


def test_an_epoch_that_goes_back_is_refused() -> None:
    records = line([SnapshotKind.DELTA])
    records[2] = record(2, SnapshotKind.DELTA, records[1], epoch=0)
    with pytest.raises(BrokenChainError, match="older epoch"):
        chain.plan(records[2], None, records)


def test_a_chain_must_begin_with_a_full_snapshot() -> None:
    records = line([])
    records[1] = record(1, SnapshotKind.DELTA, None)
    with pytest.raises(BrokenChainError, match="not a full snapshot"):
        chain.plan(records[1], None, records)


@pytest.mark.parametrize(
    ("deltas", "delta_bytes", "expected"), [(0, 10, False), (3, 10, True), (0, 1001, True), (2, 10, False)]
)
def test_a_new_chain_begins_when_the_old_one_is_long_or_heavy(deltas: int, delta_bytes: int, expected: bool) -> None:
    records = line([SnapshotKind.DELTA] * deltas)
    head = records[len(records)]
    assert chain.starts_new_chain(head, delta_bytes, ChainPolicy(max_deltas=3, max_percent=100)) is expected
