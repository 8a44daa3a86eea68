"""Back-off: pauses grow to their bound, are never equal for all, and begin anew after a success or a healthy while."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from membridge.aio import backoff
from membridge.aio.backoff import Backoff, jittered, kept_running, pause_after
from membridge.aio.lifecycle import PartEndedError


@given(failures=st.integers(0, 10_000), first=st.floats(0.001, 10.0), most=st.floats(0.001, 100.0))
def test_a_pause_is_between_half_and_whole_of_a_doubled_bounded_one(failures: int, first: float, most: float) -> None:
    whole = min(most, first * 2.0 ** min(max(0, failures - 1), 40))
    assert min(most, first * 2.0**16, whole) / 2 <= pause_after(failures, first=first, most=most) <= most


def test_two_that_fail_together_do_not_come_back_together() -> None:
    assert len({pause_after(5) for _ in range(20)}) > 10
    assert len({jittered(1.0) for _ in range(20)}) > 10


def test_a_success_counts_from_one_again() -> None:
    pauses = Backoff(first=1.0, most=100.0)
    assert [0.5 * 2**n <= pauses.failed() <= 2**n for n in range(5)] == [True] * 5
    pauses.reset()
    assert pauses.failed() <= 1.0


async def test_what_fails_or_ends_is_run_again_until_its_failure_is_one_to_raise() -> None:
    ends = iter([ValueError("first"), None, KeyError("last")])
    heard: list[str] = []

    async def act() -> None:
        if (end := next(ends)) is not None:
            raise end

    def on_failure(failure: Exception, pause: float) -> None:
        heard.append(type(failure).__name__)
        assert pause > 0.0
        if isinstance(failure, KeyError):
            raise failure

    with pytest.raises(KeyError):
        await kept_running(act, name="x", on_failure=on_failure, first=0.001, most=0.01)
    assert heard == ["ValueError", PartEndedError.__name__, "KeyError"]


async def test_a_healthy_while_makes_the_next_failure_a_first_one(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    async def act() -> None:
        raise ValueError

    def on_failure(failure: Exception, pause: float) -> None:
        pauses.append(pause)
        if len(pauses) == 4:
            # What ran any time at all was healthy.
            monkeypatch.setattr(backoff, "HEALTHY", -1.0)
        if len(pauses) == 5:
            raise failure

    with pytest.raises(ValueError, match=r"^$"):
        await kept_running(act, name="x", on_failure=on_failure, first=0.001, most=10.0)
    assert pauses[3] > 0.002
    assert pauses[4] <= 0.001
