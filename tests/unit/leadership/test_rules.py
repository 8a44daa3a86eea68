"""Leadership's rules, one by one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from membridge.errors import SettingsError
from membridge.leadership import rules
from membridge.leadership.rules import Ahead, Held, Lease, Rival, Seen, Standing, Step, Terms
from schemas.identity import NodeId
from schemas.leadership import Policy

TTL = st.floats(1.0, 3600.0)
INSTANT = st.floats(0, 1e7)
TERMS = Terms.of(30.0, grace=10.0)
#: What large floating point numbers lose: a microsecond at most.
ROUNDING = 1e-6


@given(ttl=TTL)
def test_a_holder_has_time_for_two_lost_requests_before_it_must_stop(ttl: float) -> None:
    terms = Terms.of(ttl)
    assert terms.renew_every + 2 * terms.request_timeout <= terms.acts_for + ROUNDING
    assert terms.acts_for < terms.ttl


@pytest.mark.parametrize(
    "terms",
    [
        Terms(0.9, 0.3, 0.15),
        Terms(float("nan"), 10.0, 5.0),
        Terms(30.0, 15.0, 5.0),
        Terms(30.0, 10.0, 6.0),
        Terms(30.0, 10.0, 5.0, grace=-1.0),
    ],
)
def test_terms_under_which_a_holder_outlives_its_lease_are_refused(terms: Terms) -> None:
    with pytest.raises(SettingsError, match="is not safe") as refused:
        rules.validate_terms(terms)
    assert refused.value.field == "LEADERSHIP_LEASE_SECONDS"
    assert refused.value.remedy


@given(ttl=TTL, sent=INSTANT, delay=st.floats(0, 10.0), waited=st.floats(0, 1e4))
def test_a_contender_never_acquires_while_the_holder_may_act(
    ttl: float, sent: float, delay: float, waited: float
) -> None:
    terms = Terms.of(ttl)
    now = sent + delay + waited
    for lease in (Lease.HELD, Lease.VANISHED):
        seen = Seen(lease, at=sent + delay)
        if rules.wait_of_contender(now, seen, terms, preferred=True, policy=Policy.MANUAL) == 0.0:
            assert not rules.may_act(now, Held(1, sent), terms)


@pytest.mark.parametrize(
    ("lease", "wait"), [(Lease.FREE, 0.0), (Lease.OURS, 0.0), (Lease.HELD, 30.0), (Lease.VANISHED, 30.0)]
)
def test_what_was_given_back_or_is_ours_is_free_at_once_and_all_else_after_a_ttl(lease: Lease, wait: float) -> None:
    seen = Seen(lease, 100.0)
    assert rules.wait_of_contender(100.0, seen, TERMS, preferred=True, policy=Policy.MANUAL) == wait
    assert rules.wait_of_contender(100.0 + wait, seen, TERMS, preferred=True, policy=Policy.MANUAL) == 0.0


@pytest.mark.parametrize("lease", list(Lease))
def test_under_manual_nobody_but_the_preferred_takes_over(lease: Lease) -> None:
    assert rules.wait_of_contender(9e9, Seen(lease, 0.0), TERMS, preferred=False, policy=Policy.MANUAL) is None


@pytest.mark.parametrize(("turn", "wait"), [(0, 40.0), (1, 45.0), (3, 55.0)])
def test_under_auto_others_take_over_after_a_grace_time_one_after_the_other(turn: int, wait: float) -> None:
    seen = Seen(Lease.HELD, 100.0)
    assert rules.wait_of_contender(100.0, seen, TERMS, preferred=False, policy=Policy.AUTO, ahead=Ahead(turn)) == wait


def test_even_without_a_grace_time_a_hand_over_is_left_to_the_preferred_node() -> None:
    terms = Terms.of(30.0, grace=0.0)
    given_back, dead = Seen(Lease.FREE, 100.0), Seen(Lease.HELD, 100.0)
    assert rules.wait_of_contender(100.0, given_back, terms, preferred=False, policy=Policy.AUTO) == 10.0
    assert rules.wait_of_contender(100.0, dead, terms, preferred=False, policy=Policy.AUTO) == 30.0


@pytest.mark.parametrize(("grace", "wait"), [(0.0, 30.0), (10.0, 30.0), (60.0, 60.0)])
def test_a_preferred_node_that_is_there_gets_a_leases_time_to_take_what_was_given_back(
    grace: float, wait: float
) -> None:
    terms, given_back, dead = Terms.of(30.0, grace=grace), Seen(Lease.FREE, 100.0), Seen(Lease.HELD, 100.0)
    others = {"preferred": False, "policy": Policy.AUTO, "ahead": Ahead(preferred=True)}
    assert rules.wait_of_contender(100.0, given_back, terms, **others) == wait
    assert rules.wait_of_contender(100.0, dead, terms, **others) == 30.0 + grace


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
    assert rules.step_of_holder(1000.0 + elapsed, Held(7, 1000.0), TERMS, wanted=wanted) is expected


def test_nobody_acts_without_a_lease() -> None:
    assert not rules.may_act(0.0, None, TERMS)


@pytest.mark.parametrize(
    ("before", "entry", "released", "expected"),
    [
        (None, None, False, Seen(Lease.FREE, 5.0)),
        (None, Lease.HELD, False, Seen(Lease.HELD, 5.0)),
        (Seen(Lease.HELD, 1.0), Lease.HELD, False, Seen(Lease.HELD, 5.0)),
        (Seen(Lease.HELD, 1.0), Lease.OURS, False, Seen(Lease.OURS, 5.0)),
        (Seen(Lease.HELD, 1.0), None, True, Seen(Lease.FREE, 5.0)),
        (Seen(Lease.HELD, 1.0), None, False, Seen(Lease.VANISHED, 1.0)),
        (Seen(Lease.VANISHED, 1.0), None, False, Seen(Lease.VANISHED, 1.0)),
        (Seen(Lease.OURS, 1.0), None, False, Seen(Lease.OURS, 1.0)),
        (Seen(Lease.FREE, 1.0), None, False, Seen(Lease.FREE, 1.0)),
    ],
)
def test_a_look_tells_a_release_from_a_loss(
    before: Seen | None, entry: Lease | None, released: bool, expected: Seen
) -> None:
    assert rules.sight(5.0, before, entry, released=released) == expected


@pytest.mark.parametrize(
    ("lease", "has_counter", "known", "expected"),
    [
        (Lease.FREE, False, 3, Lease.VANISHED),
        (Lease.FREE, False, 0, Lease.FREE),
        (Lease.FREE, True, 3, Lease.FREE),
        (Lease.OURS, False, 3, Lease.VANISHED),
        (Lease.HELD, False, 3, Lease.HELD),
        (Lease.VANISHED, False, 3, Lease.VANISHED),
    ],
)
def test_nothing_is_free_at_once_when_the_store_forgot_the_epochs(
    lease: Lease, has_counter: bool, known: int, expected: Lease
) -> None:
    seen = Seen(lease, 1.0)
    worth = rules.after_loss(9.0, seen, has_counter=has_counter, known=known)
    assert worth == (seen if expected is lease else Seen(expected, 9.0))


@pytest.mark.parametrize(
    ("standing", "expected"),
    [
        (Standing(0, 0, 0, 0, 0), True),
        (Standing(5, 100, 5, 100, 1), True),
        (Standing(6, 100, 5, 100, 1), True),
        (Standing(4, 100, 5, 100, 1), False),
        (Standing(5, 99, 5, 100, 1), False),
        (Standing(0, 0, 5, 100, 1), False),
    ],
)
def test_an_empty_or_lagging_node_is_no_candidate(standing: Standing, expected: bool) -> None:
    assert rules.is_candidate(standing) is expected


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
