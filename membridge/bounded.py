"""One coroutine per item, some at once: for requests that are independent and must not all be made together."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

T = TypeVar("T")


async def each(items: Iterable[T], act: Callable[[T], Awaitable[None]], *, at_once: int) -> None:
    """Await `act(item)` for every item, `at_once` at a time.

    The first failure cancels the rest and is raised as itself, not inside a group: the siblings failed because of it.
    """
    free = asyncio.Semaphore(at_once)

    async def one(item: T) -> None:
        async with free:
            await act(item)

    try:
        async with asyncio.TaskGroup() as group:
            for item in items:
                group.create_task(one(item))
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
