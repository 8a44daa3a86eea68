"""Chains with rollups: any two commits are few steps apart, and retention leaves a line that leads to all it keeps."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from membridge.commits import chain, gc
from membridge.commits.chain import STRIDE, BrokenChainError, Position
from membridge.commits.retention import SnapshotPolicy, kept, needed
from schemas.identity import NodeId, Seq, canonical_id
from schemas.snapshot import Rollup, SnapshotKind, SnapshotObject, SnapshotRecord

BEGIN = datetime(2026, 1, 5, tzinfo=UTC)
#: Steps from one commit to another, of a chain of so many.
MOST_STEPS = {4_096: 28, 32_768: 35}
Records = dict[Seq, SnapshotRecord]


def stored(key: str) -> SnapshotObject:
    return SnapshotObject(key=key, sha256="0" * 64, size_bytes=1)


def line(first: Seq, count: int, gaps: set[Seq] = frozenset(), unmade: set[Seq] = frozenset()) -> Records:  # pyright: ignore[reportArgumentType]
    """Return a full and deltas with the rollups that the primary makes: some numbers came to nothing, some failed."""
    records: Records = {}
    for seq in range(first, first + count):
        if seq in gaps and seq != first:
            continue
        parent = records[max(records)] if records else None
        records[seq] = SnapshotRecord(
            project=canonical_id("p"), seq=seq, epoch=1, parent_seq=parent.seq if parent else seq - 1,
            parent_sha256=parent.sha256 if parent else None,
            kind=SnapshotKind.DELTA if parent else SnapshotKind.FULL, sha256=f"{seq:064x}",
            object=stored(f"delta {seq}"), full_seq=first, node=NodeId("a"), nonce=f"{seq}",
            created_at=(BEGIN + timedelta(minutes=20 * seq)).isoformat(),
            rollups=rollups(records, parent, seq) if parent and seq not in unmade else [],
        )  # fmt: skip
    return records


def rollups(records: Records, parent: SnapshotRecord, seq: Seq) -> list[Rollup]:
    """Choose as `membridge.commits.rollups` does, without objects."""
    made: list[Rollup] = []
    begins = parent
    for width in chain.WIDTHS:
        if seq // width == parent.seq // width:
            break
        way = chain.descent(begins, max((seq // width - 1) * width, parent.full_seq), records)
        if way.steps:
            begins = way.begins
            one = stored(f"rollup {begins.seq} to {seq}")
            made.append(Rollup(after_seq=begins.seq, after_sha256=begins.sha256, object=one))
    return made


LONG = line(5, 4_100)


@settings(deadline=None, max_examples=300)
@given(head=st.integers(5, 4_104), at=st.integers(5, 4_104))
def test_any_commit_is_few_steps_from_any_other(head: int, at: int) -> None:
    at, head = sorted((at, head))
    record = LONG[at]
    plan = chain.plan(LONG[head], Position(record.seq, record.epoch, record.sha256), LONG)
    assert plan is not None
    assert not plan.from_full
    # Down to the widest rollup, and up again.
    assert len(plan.steps) <= 2 * 4 * (STRIDE - 1)
    assert reaches(plan.steps, record.seq) == head
    # The records that a reader fetches at once, before it knows any, are those that it needs.
    likely = set(chain.likely(head, at, 5))
    assert likely == {at, *(step.record.seq for step in plan.steps)}


def reaches(steps: tuple[chain.Step, ...], at: Seq) -> Seq:
    for step in steps:
        starts = {rollup.object.key: rollup.after_seq for rollup in step.record.rollups}
        assert step.object is not None
        assert starts.get(step.object.key, step.record.parent_seq) == at
        at = step.record.seq
    return at


@pytest.mark.parametrize("head", [5, 12, 64, 511, 512, 1_000, 4_095, 4_096, 4_104])
def test_a_cold_pull_reads_few_objects(head: int) -> None:
    plan = chain.plan(LONG[head], None, LONG)
    assert plan is not None
    assert plan.from_full
    assert len(plan.steps) <= 1 + MOST_STEPS[4_096]
    assert reaches(plan.steps[1:], 5) == head


@settings(deadline=None)
@given(
    first=st.integers(1, 100),
    gaps=st.sets(st.integers(1, 300), max_size=60),
    unmade=st.sets(st.integers(1, 40).map(lambda number: number * STRIDE), max_size=10),
    data=st.data(),
)
def test_gaps_and_rollups_that_were_not_made_only_cost_steps(
    first: int, gaps: set[int], unmade: set[int], data: st.DataObject
) -> None:
    records = line(first, 300, gaps, unmade)
    head = records[max(records)]
    at = data.draw(st.sampled_from(sorted(records)))
    known: Records = {head.seq: head}
    # Reads as `heads.lineage` does, only what was missed.
    for _ in range(len(records)):
        lacked = set[Seq]()
        way = chain.descent(head, at, known, lacked=lacked)
        new = {seq: records[seq] for seq in lacked if seq in records and seq not in known}
        if not new:
            break
        known |= new
    assert way.begins.seq == at
    assert reaches(way.steps, at) == head.seq


def test_without_rollups_every_delta_is_a_step() -> None:
    plan = chain.plan(LONG[100], None, LONG, rollups=False)
    assert plan is not None
    assert [step.object for step in plan.steps] == [LONG[seq].object for seq in range(5, 101)]
    with pytest.raises(BrokenChainError, match="seq 50 is missing"):
        chain.plan(LONG[100], None, {seq: one for seq, one in LONG.items() if seq != 50}, rollups=False)


def test_a_rollup_that_does_not_begin_at_its_record_is_a_flaw_and_no_step() -> None:
    one = LONG[64]
    other = msgspec.structs.replace(one.rollups[0], after_sha256="e" * 64)
    wrong = msgspec.structs.replace(one, rollups=[other, *one.rollups[1:]])
    assert chain.flaw(one, LONG) == ""
    assert "rollup from seq 56 does not begin" in chain.flaw(wrong, LONG)
    way = chain.descent(msgspec.structs.replace(one, rollups=[other]), 56, LONG)
    assert [step.object for step in way.steps] == [LONG[seq].object for seq in range(57, 65)]
    # Its parent may be pruned where a rollup leads to it, and must not where none does.
    alone = {seq: record for seq, record in LONG.items() if seq not in {50, 63}}
    assert chain.flaw(one, alone) == ""
    assert "parent, seq 50, is missing" in chain.flaw(LONG[51], alone)
    assert "is a full snapshot and has rollups" in chain.flaw(
        msgspec.structs.replace(one, kind=SnapshotKind.FULL, full_seq=64), {}
    )


POLICIES = st.builds(
    SnapshotPolicy, last=st.integers(1, 5), hourly=st.integers(0, 5), daily=st.integers(0, 5),
    weekly=st.integers(0, 3), recent=st.integers(0, 20),
)  # fmt: skip


@settings(deadline=None)
@given(
    policy=POLICIES,
    first=st.integers(1, 70),
    gaps=st.sets(st.integers(1, 400), max_size=40),
    tagged=st.sets(st.integers(1, 400), max_size=4),
    later=st.lists(st.integers(1, 400), max_size=3),
)
def test_what_retention_leaves_is_a_line_that_leads_to_all_it_keeps(
    policy: SnapshotPolicy, first: int, gaps: set[int], tagged: set[int], later: list[int]
) -> None:
    whole = line(first, 400, gaps)
    records = {seq: one for seq, one in whole.items() if seq <= first + 50}
    # Collected, then more commits, then collected again.
    for more in [*sorted(later), 400]:
        records |= {seq: one for seq, one in whole.items() if max(records) < seq <= max(*records, first + more)}
        stays = kept(records, tagged, policy)
        wanted = needed(records, stays, policy)
        left = {seq: records[seq] for seq in sorted(wanted)}
        for seq in stays:
            plan = chain.plan(left[seq], None, left)
            assert plan is not None
            assert reaches(plan.steps[1:], first) == seq
            # As few as before the others went.
            before = chain.plan(records[seq], None, records)
            assert before is not None
            assert len(plan.steps) == len(before.steps)
        for before, seq in pairwise(left):
            steps = chain.steps_from(left[seq], before, left)
            assert steps is not None
            assert len(steps) == 1
            assert chain.flaw(left[seq], left) == ""
        assert stays <= kept(left, tagged, policy)
        assert needed(left, stays, policy) <= wanted
        records = left


def test_of_a_year_little_is_left() -> None:
    whole = line(1, 20_000)
    policy = SnapshotPolicy()
    wanted = needed(whole, kept(whole, (), policy), policy)
    assert len(wanted) < policy.recent + 700
    head = whole[20_000]
    plan = chain.plan(head, None, {seq: whole[seq] for seq in wanted})
    assert plan is not None
    assert len(plan.steps) <= 1 + MOST_STEPS[32_768]


@settings(deadline=None)
@given(gaps=st.sets(st.integers(2, 200), max_size=20), left=st.sets(st.integers(1, 200), max_size=20))
def test_what_goes_is_deleted_in_stretches_that_do_not_need_each_other(gaps: set[int], left: set[int]) -> None:
    records = line(1, 120, gaps) | line(121, 80, gaps)
    left = (left & records.keys()) | {max(records)}
    going = {seq: record for seq, record in records.items() if seq not in left}
    stretches = gc.stretches(left, going)
    assert sorted(record.seq for one in stretches for record in one) == sorted(going)
    for one in stretches:
        for record, older in pairwise(one):
            # The newest first: what goes next is what this one was built on.
            assert record.parent_seq == older.seq
        oldest = one[-1]
        assert oldest.kind is SnapshotKind.FULL or oldest.parent_seq in left
