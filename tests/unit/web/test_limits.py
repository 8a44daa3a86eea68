"""Bounds on callers: a bucket each, in bounded memory."""

import pytest

from membridge.errors import OverloadedError
from services.web.limits import Rate, RateLimit


class Clock:
    """A clock that a test moves."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_caller_may_ask_a_burst_at_once_and_then_at_its_rate() -> None:
    clock = Clock()
    limit = RateLimit(Rate(per_second=2.0, burst=3), clock=clock)
    for _ in range(3):
        limit.take("a")
    with pytest.raises(OverloadedError) as refused:
        limit.take("a")
    assert refused.value.seconds == pytest.approx(0.5)
    clock.now = 0.5
    limit.take("a")
    with pytest.raises(OverloadedError):
        limit.take("a")
    clock.now = 1_000.0
    for _ in range(3):
        limit.take("a")


def test_one_caller_does_not_use_up_what_another_may_ask() -> None:
    limit = RateLimit(Rate(per_second=1.0, burst=1), clock=Clock())
    limit.take("a")
    limit.take("b")
    with pytest.raises(OverloadedError):
        limit.check("a")


def test_a_check_takes_nothing() -> None:
    limit = RateLimit(Rate(per_second=1.0, burst=1), clock=Clock())
    limit.check("a")
    limit.check("a")
    limit.take("a")


def test_callers_without_end_take_bounded_memory_and_the_quietest_is_forgotten() -> None:
    limit = RateLimit(Rate(per_second=0.001, burst=1), most=100, clock=Clock())
    limit.take("first")
    for one in range(99):
        limit.take(f"{one}")
    with pytest.raises(OverloadedError):
        limit.take("first")
    for one in range(1_000):
        limit.take(f"more {one}")
    assert len(limit) == 100
    limit.take("first")
