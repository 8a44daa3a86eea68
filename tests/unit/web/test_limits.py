"""Bounds on callers: a bucket each, in bounded memory; bounds on requests: a deadline each, with one timer."""

import asyncio

import pytest

from membridge.aio.deadline import Deadline
from membridge.errors import DeadlineExceededError, MembridgeError, OverloadedError, UnavailableError
from services.web.limits import Flights, Rate, RateLimit


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


async def ends(flights: Flights, seconds: float) -> MembridgeError | None:
    """Return what a request ends with that never has an answer."""
    try:
        async with flights.one("reading", Deadline.after(seconds)):
            await asyncio.Event().wait()
    except MembridgeError as error:
        return error


async def test_each_request_ends_at_its_own_deadline_though_one_timer_rings_for_all() -> None:
    flights = Flights(10)
    late: list[float] = []

    async def one(seconds: float) -> None:
        assert isinstance(await ends(flights, seconds), DeadlineExceededError)
        late.append(seconds)

    async with asyncio.timeout(20.0), asyncio.TaskGroup() as group:
        # The nearest one comes last, and each time the timer rings there is another one to look for.
        for seconds in (0.3, 0.2, 0.1, 0.0):
            group.create_task(one(seconds))
    assert late == [0.0, 0.1, 0.2, 0.3]
    assert len(flights) == 0


async def test_a_request_that_has_its_answer_is_not_ended_at_its_deadline() -> None:
    flights = Flights(10)
    async with asyncio.timeout(20.0), flights.one("reading", Deadline.after(0.05)) as flight:
        flight.answered()
        # It ends at the same deadline, of the same timer.
        assert isinstance(await ends(flights, 0.1), DeadlineExceededError)
    assert (task := asyncio.current_task()) is not None
    assert task.cancelling() == 0


async def test_a_request_that_is_cancelled_and_late_at_once_ends_as_cancelled() -> None:
    flights = Flights(10)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(ends(flights, 60.0))
        await asyncio.sleep(0)
        assert await flights.drain(0.0) == 1
        other = group.create_task(ends(Flights(10), 60.0))
        await asyncio.sleep(0)
        other.cancel()
    assert isinstance(task.result(), UnavailableError)
    assert other.cancelled()


async def test_a_handler_that_fails_when_it_is_ended_fails_as_it_does() -> None:
    flights = Flights(10)

    async def handler() -> None:
        async with flights.one("reading", Deadline.after(0.0)):
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                raise KeyError from None

    async with asyncio.timeout(20.0):
        with pytest.raises(KeyError):
            await handler()
    assert (task := asyncio.current_task()) is not None
    assert task.cancelling() == 0
