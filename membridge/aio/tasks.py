"""Tasks side by side: one per item, as long as a body lasts, apart.

And their failures: the first instead of a group of them, and the one that a caller is told of.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TypeVar, cast

from membridge.errors import MembridgeError
from membridge.system.files import of_file
from membridge.system.logging import Logger

T = TypeVar("T")


@contextmanager
def first_failure() -> Generator[None]:
    """Raise the failure that a task group in the body ended with as itself, not inside a group of groups.

    The siblings of a failed task were cancelled because of it; where several failed the first error of ours is raised.
    """
    try:
        yield
    except BaseExceptionGroup as failures:
        raise cause_of(failures) from None


def cause_of(error: BaseException) -> BaseException:
    """Return the failure that says most of what went wrong: of a group the first error of ours, else the first."""
    failures = list(leaves(error))
    return next((one for one in failures if isinstance(one, MembridgeError)), failures[0])


def leaves(error: BaseException) -> Iterator[BaseException]:
    """Yield the failures in a group and in the groups inside it; the error itself when it is not a group."""
    if not isinstance(error, BaseExceptionGroup):
        yield error
        return
    for inner in cast("BaseExceptionGroup[BaseException]", error).exceptions:
        yield from leaves(inner)


def answerable(error: BaseException, log: Logger, **fields: object) -> MembridgeError:
    """Return the error that a caller is told of: ours, or what a disk says; any other is `internal`, and in the log.

    `fields` say in the log which request failed.
    """
    cause = cause_of(error)
    if isinstance(cause, MembridgeError):
        return cause
    if (said := of_file(cause)) is not None:
        log.warning("request failed", reason=said.message, remedy=said.remedy, **fields)
        return said
    log.error("request failed", exc_info=error, **fields)
    return MembridgeError("internal error")


async def each(items: Iterable[T], act: Callable[[T], Awaitable[None]], *, at_once: int) -> None:
    """Await `act(item)` for every item, `at_once` at a time; the first failure cancels the rest and is raised."""
    free = asyncio.Semaphore(at_once)

    async def one(item: T) -> None:
        async with free:
            await act(item)

    with first_failure():
        async with asyncio.TaskGroup() as group:
            for item in items:
                group.create_task(one(item))


class _BodyEnded(Exception):  # noqa: N818 - not an error: it only makes the group cancel its tasks
    pass


@asynccontextmanager
async def background() -> AsyncGenerator[asyncio.TaskGroup]:
    """Yield a group whose tasks are cancelled when the body ends; a failure of the body or of a task is raised."""
    with first_failure():
        try:
            async with asyncio.TaskGroup() as group:
                yield group
                raise _BodyEnded
        except BaseExceptionGroup as failures:
            failed = failures.split(_BodyEnded)[1]
            if failed is not None:
                raise failed from None


async def apart(act: Awaitable[None], *, name: str) -> Exception | None:
    """Await `act` in a task of its own and return the failure it ended with, None when it ended well.

    A failure does not touch the caller, its task group or its siblings. A cancellation of the caller cancels `act`.
    The task of its own matters on Python 3.11: after a TaskGroup failed, its task looks cancelled for ever.
    """
    failures: list[Exception] = []

    async def kept() -> None:
        try:
            await act
        except Exception as error:  # noqa: BLE001 - the caller decides what a failure means
            failures.append(cast("Exception", cause_of(error)))

    async with asyncio.TaskGroup() as group:
        group.create_task(kept(), name=name)
    return failures[0] if failures else None
