"""Routing alone: who gets a task, and why."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from services.coordinator.engine.routing import PATIENCE, SOFT, Candidate, Stick, eligible, route

WORKER = Candidate("w1", "", True, frozenset({"gpu", "eu"}), 0, 4, 10.0)  # noqa: FBT003 - as declared


def named(name: str, **more: object) -> Candidate:
    return replace(WORKER, id=name, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("worker", "why"),
    [
        (named("w", declines="is drained"), "is drained"),
        (named("w", claude_cli=False), "has no claude program"),
        (named("w", labels=frozenset({"eu"})), "lacks gpu"),
        (named("w"), ""),
    ],
)
def test_why_a_worker_may_not(worker: Candidate, why: str) -> None:
    assert eligible({"gpu"}, worker) == why
    decision = route({"gpu"}, [worker], sticky=None, waited=0.0)
    assert (decision.worker is None) == bool(why)
    if why:
        assert decision.why == f"no eligible worker because w {why}"


def test_the_least_busy_then_the_freshest() -> None:
    workers = [named("a", active=1), named("b", heard=9.0), named("c", heard=11.0)]
    assert route((), workers, sticky=None, waited=0.0).worker == "c"


def test_a_tie_is_soft() -> None:
    workers = [named("a", active=2), named("b", active=1)]
    kept = route((), workers, sticky="a", waited=0.0)
    assert (kept.worker, kept.stick) == ("a", Stick.RETAIN)
    busier = [named("a", active=3), named("b", active=0)]
    left = route((), busier, sticky="a", waited=0.0)
    assert (left.worker, left.stick, left.why) == ("b", Stick.SWITCH, "a has more than twice the load")


def test_a_full_worker_that_knows_the_context_is_waited_for_a_while() -> None:
    workers = [named("a", active=4), named("b")]
    waiting = route((), workers, sticky="a", waited=4.0)
    assert (waiting.worker, waiting.stick, waiting.retry_after) == (None, Stick.WAIT, PATIENCE - 4.0)
    given_up = route((), workers, sticky="a", waited=PATIENCE)
    assert (given_up.worker, given_up.stick) == ("b", Stick.SWITCH)


def test_a_worker_that_is_gone_is_not_waited_for() -> None:
    decision = route((), [named("a", declines="is offline"), named("b")], sticky="a", waited=0.0)
    assert (decision.worker, decision.stick) == ("b", Stick.SWITCH)


candidates = st.builds(
    Candidate,
    id=st.sampled_from(["a", "b", "c", "d"]),
    declines=st.sampled_from(["", "is offline"]),
    claude_cli=st.booleans(),
    labels=st.frozensets(st.sampled_from(["x", "y"])),
    active=st.integers(0, 5),
    max_concurrency=st.integers(1, 5),
    heard=st.floats(0, 100),
)


@given(
    st.frozensets(st.sampled_from(["x", "y"])),
    st.lists(candidates, max_size=4, unique_by=lambda one: one.id),
    st.sampled_from([None, "a", "b"]),
    st.floats(0, 20),
)
def test_no_decision_breaks_a_rule(
    labels: frozenset[str], workers: list[Candidate], sticky: str | None, waited: float
) -> None:
    decision = route(labels, workers, sticky=sticky, waited=waited)
    assert decision.why
    free = [one for one in workers if not eligible(labels, one) and not one.is_full]
    if decision.worker is None:
        # Nobody waits for ever: the tie is waited for, and that ends, or nobody is free.
        assert decision.retry_after is not None or not free
        return
    chosen = next(one for one in workers if one.id == decision.worker)
    assert chosen in free
    assert chosen.load <= SOFT * min(one.load for one in free) or decision.stick is not Stick.RETAIN


def test_a_full_worker_that_knows_the_context_is_not_left_for_nobody() -> None:
    given_up = route((), [named("a", active=4)], sticky="a", waited=PATIENCE)
    assert (given_up.worker, given_up.stick, given_up.why) == (None, Stick.WAIT, "all eligible workers are full")


def test_why_nobody_may_is_said_of_five() -> None:
    assert route((), [], sticky=None, waited=0.0).why == "no eligible worker because there is none"
    many = [named(f"w{number}", declines="is offline") for number in range(7)]
    why = route((), many, sticky=None, waited=0.0).why
    assert why.endswith("w4 is offline; and 2 more")
