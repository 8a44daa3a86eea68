"""What a role may do, and when a changed database is pushed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from membridge.errors import PrimaryPullRefusedError, RefusedError, SecondaryPushBlockedError
from membridge.node import rules
from membridge.node.rules import PushAction, Quiet
from schemas.leadership import Role

TIMES = st.floats(0, 1e6, allow_nan=False)


@pytest.mark.parametrize("snapshot", [False, True])
def test_a_primary_commits(snapshot: bool) -> None:
    action = rules.push_action(Role.PRIMARY, snapshot=snapshot, allow_secondary_push=False, primary="a")
    assert action is PushAction.COMMIT


def test_a_secondary_proposes() -> None:
    for role in (Role.SECONDARY, Role.NONE):
        action = rules.push_action(role, snapshot=False, allow_secondary_push=False, primary="a")
        assert action is PushAction.PROPOSE


@pytest.mark.parametrize(("primary", "named"), [("node-a", "node-a is primary"), (None, "no node is primary")])
def test_a_secondary_that_would_commit_is_blocked_and_told_why(primary: str | None, named: str) -> None:
    with pytest.raises(SecondaryPushBlockedError) as refused:
        rules.push_action(Role.SECONDARY, snapshot=True, allow_secondary_push=False, primary=primary)
    assert named in refused.value.message
    assert "ALLOW_SECONDARY_PUSH=1" in refused.value.remedy
    assert refused.value.mapping.exit == 3


def test_a_secondary_may_commit_when_the_settings_say_so() -> None:
    action = rules.push_action(Role.SECONDARY, snapshot=True, allow_secondary_push=True, primary="a")
    assert action is PushAction.COMMIT


def test_only_a_differing_primary_refuses_to_be_replaced() -> None:
    with pytest.raises(PrimaryPullRefusedError) as refused:
        rules.check_replace(Role.PRIMARY, differs=True, allow_primary_pull_override=False)
    assert refused.value.mapping.exit == 2
    rules.check_replace(Role.PRIMARY, differs=True, allow_primary_pull_override=True)
    rules.check_replace(Role.PRIMARY, differs=False, allow_primary_pull_override=False)
    rules.check_replace(Role.SECONDARY, differs=True, allow_primary_pull_override=False)


@given(first=TIMES, gap=st.floats(0, 1000), since=st.floats(0, 1000))
def test_a_push_waits_for_quiet_but_never_longer_than_the_bound(first: float, gap: float, since: float) -> None:
    quiet = Quiet(after=5.0, at_most=60.0)
    last, now = first + gap, first + gap + since
    wait = rules.quiet_wait(now, first, last, quiet)
    assert 0.0 <= wait <= quiet.after + 1e-9
    if since >= quiet.after or now - first >= quiet.at_most:
        assert wait == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize(
    ("leader", "preferred", "expected"),
    [("b", "b", True), ("b", "a", True), (None, "b", True), (None, "a", False), (None, None, False)],
)
def test_a_node_that_is_about_to_lead_offers_nothing(leader: str | None, preferred: str | None, expected: bool) -> None:
    assert rules.proposes_now("a", leader=leader, preferred=preferred) is expected


def test_only_a_primary_deletes_and_the_refusal_says_who_is() -> None:
    rules.check_primary(Role.PRIMARY, "deletes snapshots", primary=None)
    with pytest.raises(RefusedError, match="pi is primary") as refused:
        rules.check_primary(Role.SECONDARY, "deletes snapshots", primary="pi")
    assert refused.value.remedy == "run it on pi"
    with pytest.raises(RefusedError, match="no node is primary"):
        rules.check_primary(Role.SECONDARY, "deletes snapshots", primary=None)


@pytest.mark.parametrize(("passed", "due"), [(0, False), (86_399, False), (86_400, True), (-1, True)])
def test_garbage_is_due_after_a_day_and_after_a_clock_that_went_back(passed: float, due: bool) -> None:
    assert rules.is_daily_due(1_000_000.0, 1_000_000.0 + passed) is due
