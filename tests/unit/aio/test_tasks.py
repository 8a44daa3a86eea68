"""Tasks that live as long as a body, and exceptions that come out as themselves."""

import asyncio

import pytest

from membridge.aio.tasks import background


async def test_tasks_are_cancelled_when_the_body_ends() -> None:
    async with background() as group:
        task = group.create_task(asyncio.Event().wait())
    assert task.cancelled()


async def test_the_bodys_exception_comes_out_as_itself() -> None:
    async def fails() -> None:
        async with background() as group:
            group.create_task(asyncio.Event().wait())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fails()


async def test_a_tasks_failure_ends_the_body_and_comes_out_as_itself() -> None:
    async def fails() -> None:
        raise KeyError("from a task")

    async def body() -> None:
        async with background() as group, asyncio.timeout(5.0):
            group.create_task(fails())
            await asyncio.Event().wait()

    with pytest.raises(KeyError, match="from a task"):
        await body()


async def test_a_cancellation_stays_a_cancellation() -> None:
    entered = asyncio.Event()

    async def body() -> None:
        async with background() as group:
            group.create_task(asyncio.Event().wait())
            entered.set()
            await asyncio.Event().wait()

    async with asyncio.TaskGroup() as group:
        task = group.create_task(body())
        await entered.wait()
        task.cancel()
    assert task.cancelled()
