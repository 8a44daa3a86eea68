"""Tasks that live as long as a body, and exceptions that come out as themselves."""

import asyncio
import errno

import pytest

from membridge.aio.tasks import answerable, background
from membridge.errors import DiskFullError, MembridgeError, NotFoundError
from membridge.system.logging import get_logger


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


def test_a_caller_is_told_our_error_what_a_disk_says_or_nothing_of_the_inside(
    capsys: pytest.CaptureFixture[str],
) -> None:
    log, ours = get_logger("test"), NotFoundError("no such thing")
    full = OSError(errno.ENOSPC, "no room", "/disk/file")

    assert answerable(ExceptionGroup("", [KeyError("x"), ours]), log) is ours
    assert capsys.readouterr().err == ""
    assert isinstance(said := answerable(ExceptionGroup("", [full]), log), DiskFullError)
    assert "/disk/file" in said.message
    inside = answerable(ExceptionGroup("", [KeyError("a secret")]), log)
    assert (type(inside), inside.message) == (MembridgeError, "internal error")
