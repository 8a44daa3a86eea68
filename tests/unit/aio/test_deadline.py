"""A deadline is one instant; whoever is inside its scope ends there."""

import asyncio
import time

import pytest

from membridge.aio.deadline import Deadline
from membridge.errors import DeadlineExceededError

LONG = 3600.0


def test_what_remains_shrinks_to_zero_and_never_below() -> None:
    assert LONG - 10 < Deadline.after(LONG).remaining() <= LONG
    assert Deadline(time.monotonic() - 5).remaining() == 0.0


def test_a_deadline_passes() -> None:
    assert not Deadline.after(LONG).passed
    assert Deadline.after(0).passed


def test_the_nearer_of_two_instants_counts() -> None:
    near, far = Deadline.after(5), Deadline.after(LONG)

    assert near.sooner(LONG) == near
    assert far.sooner(5).remaining() <= 5


def test_a_thread_is_told_that_its_time_is_over() -> None:
    Deadline.after(LONG).check("the copy")
    with pytest.raises(DeadlineExceededError, match="the copy took too long"):
        Deadline.after(0).check("the copy")


async def test_a_body_that_outlives_its_deadline_is_cancelled_and_named() -> None:
    cleaned: list[str] = []

    async def wait() -> None:
        async with Deadline.after(0.01).scope("the answer of node-b"):
            try:
                await asyncio.Event().wait()
            finally:
                cleaned.append("socket")

    with pytest.raises(DeadlineExceededError, match="the answer of node-b took too long"):
        await wait()
    assert cleaned == ["socket"]


async def test_a_body_that_ends_in_time_is_left_alone() -> None:
    async with Deadline.after(LONG).scope("a short wait"):
        result = "done"

    assert result == "done"


async def test_a_timeout_of_the_bodys_own_is_not_taken_for_the_deadline() -> None:
    with pytest.raises(TimeoutError, match="the socket's"):
        async with Deadline.after(LONG).scope("the upload"):
            raise TimeoutError("the socket's own")


async def test_the_sooner_of_nested_deadlines_is_the_one_that_is_named() -> None:
    with pytest.raises(DeadlineExceededError, match="inner"):
        async with Deadline.after(LONG).scope("outer"), Deadline.after(0.01).scope("inner"):
            await asyncio.Event().wait()
    with pytest.raises(DeadlineExceededError, match="outer"):
        async with Deadline.after(0.01).scope("outer"), Deadline.after(LONG).scope("inner"):
            await asyncio.Event().wait()


async def test_a_cancellation_from_outside_stays_a_cancellation() -> None:
    waiting = asyncio.Event()

    async def wait() -> None:
        async with Deadline.after(LONG).scope("a long wait"):
            waiting.set()
            await asyncio.Event().wait()

    async with asyncio.TaskGroup() as group:
        task = group.create_task(wait())
        await waiting.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
