"""Tasks that live as long as a body, and exceptions that come out as themselves."""

import asyncio
import errno

import pytest

from membridge.aio.tasks import answerable, background
from membridge.errors import DiskFullError, MembridgeError, NotFoundError
from membridge.system.logging import Logger


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


class Noted(Logger):
    """A logger that keeps what it is told: level, event, fields."""

    def __init__(self) -> None:
        super().__init__("test")
        self.lines: list[tuple[str, str, dict[str, object]]] = []

    def warning(self, event: str, /, **fields: object) -> None:
        self.lines.append(("warning", event, fields))

    def error(self, event: str, /, **fields: object) -> None:
        self.lines.append(("error", event, fields))


def test_a_caller_is_told_our_error_what_a_disk_says_or_nothing_of_the_inside() -> None:
    log, ours = Noted(), NotFoundError("no such thing")
    full, inside = OSError(errno.ENOSPC, "no room", "/disk/file"), ExceptionGroup("", [KeyError("a secret")])

    assert answerable(ExceptionGroup("", [KeyError("x"), ours]), log) is ours
    assert log.lines == []
    assert isinstance(said := answerable(ExceptionGroup("", [full]), log, subject="s"), DiskFullError)
    told = answerable(inside, log, subject="s")
    assert (type(told), told.message) == (MembridgeError, "internal error")
    assert log.lines == [
        ("warning", "request failed", {"reason": said.message, "remedy": said.remedy, "subject": "s"}),
        ("error", "request failed", {"exc_info": inside, "subject": "s"}),
    ]


async def test_a_cancellation_that_comes_while_the_background_ends_is_not_lost() -> None:
    ending, may_end, went_on = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def slow_to_end() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ending.set()
            await may_end.wait()

    async def act() -> None:
        async with background() as group:
            group.create_task(slow_to_end())
            await asyncio.sleep(0)
        went_on.set()

    async with asyncio.TaskGroup() as group:
        task = group.create_task(act())
        await ending.wait()
        task.cancel()
        await asyncio.sleep(0)
        may_end.set()

    assert task.cancelled()
    assert not went_on.is_set()
