"""Leadership's rules: at no instant may two nodes believe that they lead, whatever their clocks' offsets."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from membridge.errors import SettingsError
from membridge.leadership import rules
from membridge.leadership.rules import Held, Seen, Standing, Step, Terms
from schemas.leadership import Policy

TTL = st.floats(3.0, 3600.0)
INSTANT = st.floats(0, 1e7)


@given(ttl=TTL)
def test_a_holder_has_time_for_two_lost_requests_before_it_must_stop(ttl: float) -> None:
    terms = Terms.of(ttl)
    assert terms.renew_every + 2 * terms.request_timeout <= terms.acts_for + 1e-6
    assert terms.acts_for < terms.ttl


@pytest.mark.parametrize("terms", [Terms(2.0, 0.6, 0.3), Terms(30.0, 15.0, 5.0), Terms(30.0, 10.0, 6.0)])
def test_terms_under_which_a_holder_outlives_its_lease_are_refused(terms: Terms) -> None:
    with pytest.raises(SettingsError) as refused:
        rules.check_terms(terms)
    assert refused.value.field == "LEADERSHIP_LEASE_SECONDS"


@given(ttl=TTL, sent=INSTANT, delay=st.floats(0, 10.0), waited=st.floats(0, 1e4))
def test_a_contender_never_acquires_while_the_holder_may_act(
    ttl: float, sent: float, delay: float, waited: float
) -> None:
    terms = Terms.of(ttl)
    seen = Seen(changed_at=sent + delay, gone_at=0.0)
    now = sent + delay + waited
    step = rules.step_of_contender(now, seen, terms, preferred=True, policy=Policy.MANUAL)
    if step is Step.ACQUIRE:
        assert not rules.may_act(now, Held(1, sent), terms)


def test_a_released_lease_is_free_at_once_and_an_expired_one_after_its_ttl() -> None:
    terms = Terms.of(30.0)
    gone, held = Seen(None, 100.0), Seen(100.0, 0.0)
    assert rules.wait_of_contender(100.0, gone, terms, preferred=True, policy=Policy.MANUAL) == 0.0
    assert rules.wait_of_contender(100.0, held, terms, preferred=True, policy=Policy.MANUAL) == 30.0
    assert rules.step_of_contender(129.0, held, terms, preferred=True, policy=Policy.MANUAL) is Step.WAIT
    assert rules.step_of_contender(130.0, held, terms, preferred=True, policy=Policy.MANUAL) is Step.ACQUIRE


def test_under_manual_nobody_but_the_preferred_takes_over_and_under_auto_after_a_grace_time() -> None:
    terms = Terms.of(30.0, grace=10.0)
    seen = Seen(100.0, 0.0)
    assert rules.wait_of_contender(9999.0, seen, terms, preferred=False, policy=Policy.MANUAL) is None
    assert rules.step_of_contender(9999.0, seen, terms, preferred=False, policy=Policy.MANUAL) is Step.WAIT
    assert rules.wait_of_contender(130.0, seen, terms, preferred=False, policy=Policy.AUTO) == 10.0
    assert rules.step_of_contender(140.0, seen, terms, preferred=False, policy=Policy.AUTO) is Step.ACQUIRE


@pytest.mark.parametrize(
    ("elapsed", "wanted", "expected"),
    [
        (0.0, True, Step.KEEP),
        (10.0, True, Step.RENEW),
        (19.9, True, Step.RENEW),
        (20.0, True, Step.STOP),
        (20.0, False, Step.STOP),
        (5.0, False, Step.HAND_OVER),
    ],
)
def test_a_holder_renews_hands_over_or_stops(elapsed: float, wanted: bool, expected: Step) -> None:
    held = Held(7, 1000.0)
    assert rules.step_of_holder(1000.0 + elapsed, held, Terms.of(30.0), wanted=wanted) is expected


def test_nobody_acts_without_a_lease() -> None:
    assert not rules.may_act(0.0, None, Terms.of(30.0))


@pytest.mark.parametrize(
    ("standing", "expected"),
    [
        (Standing(0, 0, 0, 0, 0), True),
        (Standing(5, 100, 5, 100, 1), True),
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
