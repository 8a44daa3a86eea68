"""Leadership's rules, one by one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from membridge.errors import SettingsError
from membridge.leadership import rules
from membridge.leadership.rules import Freshness, HeldEpoch, LeaseState, Observation, Precedence, Rival, Step, Timing
from schemas.identity import NodeId
from schemas.leadership import Policy

TTL = st.floats(1.0, 3600.0)
INSTANT = st.floats(0, 1e7)
TIMING = Timing.of(30.0, grace=10.0)
#: What large floating point numbers lose: a microsecond at most.
ROUNDING = 1e-6


@given(ttl=TTL)
def test_a_holder_has_time_for_two_lost_requests_before_it_must_stop(ttl: float) -> None:
    timing = Timing.of(ttl)
    assert timing.renew_every + 2 * timing.request_timeout <= timing.acts_for + ROUNDING
    assert timing.acts_for < timing.ttl


@pytest.mark.parametrize(
    "timing",
    [
        Timing(0.9, 0.3, 0.15),
        Timing(float("nan"), 10.0, 5.0),
        Timing(30.0, 15.0, 5.0),
        Timing(30.0, 10.0, 6.0),
        Timing(30.0, 10.0, 5.0, grace=-1.0),
    ],
)
def test_terms_under_which_a_holder_outlives_its_lease_are_refused(timing: Timing) -> None:
    with pytest.raises(SettingsError, match="could end before its holder notices") as refused:
        rules.validate_timing(timing)
    assert refused.value.field == "LEADERSHIP_LEASE_SECONDS"
    assert refused.value.remedy


@given(ttl=TTL, sent=INSTANT, delay=st.floats(0, 10.0), waited=st.floats(0, 1e4))
def test_a_contender_never_acquires_while_the_holder_may_act(
    ttl: float, sent: float, delay: float, waited: float
) -> None:
    timing = Timing.of(ttl)
    now = sent + delay + waited
    for lease in (LeaseState.HELD, LeaseState.VANISHED):
        seen = Observation(lease, at=sent + delay)
        if rules.wait_of_candidate(now, seen, timing, preferred=True, policy=Policy.MANUAL) == 0.0:
            assert not rules.may_act(now, HeldEpoch(1, sent), timing)


@pytest.mark.parametrize(
    ("lease", "wait"),
    [(LeaseState.FREE, 0.0), (LeaseState.OURS, 0.0), (LeaseState.HELD, 30.0), (LeaseState.VANISHED, 30.0)],
)
def test_what_was_given_back_or_is_ours_is_free_at_once_and_all_else_after_a_ttl(
    lease: LeaseState, wait: float
) -> None:
    seen = Observation(lease, 100.0)
    assert rules.wait_of_candidate(100.0, seen, TIMING, preferred=True, policy=Policy.MANUAL) == wait
    assert rules.wait_of_candidate(100.0 + wait, seen, TIMING, preferred=True, policy=Policy.MANUAL) == 0.0


@pytest.mark.parametrize("lease", list(LeaseState))
def test_under_manual_nobody_but_the_preferred_takes_over(lease: LeaseState) -> None:
    assert rules.wait_of_candidate(9e9, Observation(lease, 0.0), TIMING, preferred=False, policy=Policy.MANUAL) is None


@pytest.mark.parametrize(("turn", "wait"), [(0, 40.0), (1, 45.0), (3, 55.0)])
def test_under_auto_others_take_over_after_a_grace_time_one_after_the_other(turn: int, wait: float) -> None:
    seen = Observation(LeaseState.HELD, 100.0)
    assert (
        rules.wait_of_candidate(100.0, seen, TIMING, preferred=False, policy=Policy.AUTO, precedence=Precedence(turn))
        == wait
    )


def test_even_without_a_grace_time_a_hand_over_is_left_to_the_preferred_node() -> None:
    timing = Timing.of(30.0, grace=0.0)
    given_back, dead = Observation(LeaseState.FREE, 100.0), Observation(LeaseState.HELD, 100.0)
    assert rules.wait_of_candidate(100.0, given_back, timing, preferred=False, policy=Policy.AUTO) == 10.0
    assert rules.wait_of_candidate(100.0, dead, timing, preferred=False, policy=Policy.AUTO) == 30.0


@pytest.mark.parametrize(("grace", "wait"), [(0.0, 30.0), (10.0, 30.0), (60.0, 60.0)])
def test_a_preferred_node_that_is_there_gets_a_leases_time_to_take_what_was_given_back(
    grace: float, wait: float
) -> None:
    timing, given_back, dead = (
        Timing.of(30.0, grace=grace),
        Observation(LeaseState.FREE, 100.0),
        Observation(LeaseState.HELD, 100.0),
    )
    others = {"preferred": False, "policy": Policy.AUTO, "precedence": Precedence(preferred=True)}
    assert rules.wait_of_candidate(100.0, given_back, timing, **others) == wait
    assert rules.wait_of_candidate(100.0, dead, timing, **others) == 30.0 + grace


@pytest.mark.parametrize(
    ("elapsed", "wanted", "expected"),
    [
        (0.0, True, Step.KEEP),
        (10.0, True, Step.RENEW),
        (19.9, True, Step.RENEW),
        (20.0, True, Step.STOP),
        (20.0, False, Step.STOP),
        (5.0, False, Step.HAND_OVER),
        (10.0, False, Step.RENEW),
    ],
)
def test_a_holder_renews_hands_over_or_stops(elapsed: float, wanted: bool, expected: Step) -> None:
    assert rules.step_of_holder(1000.0 + elapsed, HeldEpoch(7, 1000.0), TIMING, wanted=wanted) is expected


def test_nobody_acts_without_a_lease() -> None:
    assert not rules.may_act(0.0, None, TIMING)


@pytest.mark.parametrize(
    ("before", "entry", "released", "expected"),
    [
        (None, None, False, Observation(LeaseState.FREE, 5.0)),
        (None, LeaseState.HELD, False, Observation(LeaseState.HELD, 5.0)),
        (Observation(LeaseState.HELD, 1.0), LeaseState.HELD, False, Observation(LeaseState.HELD, 5.0)),
        (Observation(LeaseState.HELD, 1.0), LeaseState.OURS, False, Observation(LeaseState.OURS, 5.0)),
        (Observation(LeaseState.HELD, 1.0), None, True, Observation(LeaseState.FREE, 5.0)),
        (Observation(LeaseState.HELD, 1.0), None, False, Observation(LeaseState.VANISHED, 1.0)),
        (Observation(LeaseState.VANISHED, 1.0), None, False, Observation(LeaseState.VANISHED, 1.0)),
        (Observation(LeaseState.OURS, 1.0), None, False, Observation(LeaseState.OURS, 1.0)),
        (Observation(LeaseState.FREE, 1.0), None, False, Observation(LeaseState.FREE, 1.0)),
    ],
)
def test_a_look_tells_a_release_from_a_loss(
    before: Observation | None, entry: LeaseState | None, released: bool, expected: Observation
) -> None:
    assert rules.observe(5.0, before, entry, released=released) == expected


@pytest.mark.parametrize(
    ("lease", "has_counter", "known", "expected"),
    [
        (LeaseState.FREE, False, 3, LeaseState.VANISHED),
        (LeaseState.FREE, False, 0, LeaseState.FREE),
        (LeaseState.FREE, True, 3, LeaseState.FREE),
        (LeaseState.OURS, False, 3, LeaseState.VANISHED),
        (LeaseState.HELD, False, 3, LeaseState.HELD),
        (LeaseState.VANISHED, False, 3, LeaseState.VANISHED),
    ],
)
def test_nothing_is_free_at_once_when_the_store_forgot_the_epochs(
    lease: LeaseState, has_counter: bool, known: int, expected: LeaseState
) -> None:
    seen = Observation(lease, 1.0)
    worth = rules.after_loss(9.0, seen, has_counter=has_counter, known=known)
    assert worth == (seen if expected is lease else Observation(expected, 9.0))


@pytest.mark.parametrize(
    ("freshness", "expected"),
    [
        (Freshness(0, 0, 0, 0, 0), True),
        (Freshness(5, 100, 5, 100, 1), True),
        (Freshness(6, 100, 5, 100, 1), True),
        (Freshness(4, 100, 5, 100, 1), False),
        (Freshness(5, 99, 5, 100, 1), False),
        (Freshness(0, 0, 5, 100, 1), False),
    ],
)
def test_an_empty_or_lagging_node_is_no_candidate(freshness: Freshness, expected: bool) -> None:
    assert rules.is_eligible(freshness) is expected


@given(st.lists(st.integers(0, 2**53)))
def test_an_epoch_is_above_every_known_one(known: list[int]) -> None:
    assert all(rules.next_epoch(*known) > epoch for epoch in known)


RIVALS = st.lists(
    st.builds(Rival, st.sampled_from("abcdefgh").map(NodeId), st.integers(0, 3)),
    unique_by=lambda rival: rival.node,
    min_size=1,
)


@given(RIVALS)
def test_the_freshest_goes_first_then_the_smallest_id_and_no_two_at_once(nodes: list[Rival]) -> None:
    turns = {node: rules.turn_of(node.node, node.mirror_seq, nodes) for node in nodes}
    first = min(nodes, key=lambda node: (-node.mirror_seq, node.node))
    assert turns[first] == 0
    assert sorted(turns.values()) == list(range(len(nodes)))
