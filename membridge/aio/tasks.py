"""Concurrent tasks: one per item, in the background of a body, or apart from the caller.

And their failures: the first instead of a group, and the one that a caller gets as an answer.
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
    """Raise the failure of a task group in the body as itself, not inside a group of groups.

    Its siblings were cancelled because of it. If several failed, the first error of ours is raised.
    """
    try:
        yield
    except BaseExceptionGroup as failures:
        raise cause_of(failures) from None


def cause_of(error: BaseException) -> BaseException:
    """Return the most telling failure: of a group the first error of ours, else the first."""
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
    """Return the error for the caller: ours, or that of a file; any other becomes `internal` and is logged.

    `fields` identify the failed request in the log.
    """
    cause = cause_of(error)
    if isinstance(cause, MembridgeError):
        return cause
    if (ours := of_file(cause)) is not None:
        log.warning("request failed", reason=ours.message, remedy=ours.remedy, **fields)
        return ours
    log.error("request failed", exc_info=error, **fields)
    return MembridgeError("internal error", remedy="read the log of the process that answered")


async def each(items: Iterable[T], act: Callable[[T], Awaitable[None]], *, at_once: int) -> None:
    """Await `act(item)` for every item, `at_once` of them concurrently; the first failure cancels the rest."""
    free = asyncio.Semaphore(at_once)

    async def one(item: T) -> None:
        try:
            await act(item)
        finally:
            free.release()

    with first_failure():
        async with asyncio.TaskGroup() as group:
            for item in items:
                # Before there is a task: of thousands of items only some are tasks at a time.
                await free.acquire()
                group.create_task(one(item))


class _BodyEnded(Exception):  # noqa: N818 - not an error: it only makes the group cancel its tasks
    pass


@asynccontextmanager
async def background() -> AsyncGenerator[asyncio.TaskGroup]:
    """Yield a group whose tasks are cancelled when the body ends; a failure of the body or of a task is raised."""
    caller, cancelled = asyncio.current_task(), 0
    with first_failure():
        try:
            async with asyncio.TaskGroup() as group:
                yield group
                cancelled = caller.cancelling() if caller else 0
                raise _BodyEnded
        except BaseExceptionGroup as failures:
            failed = failures.split(_BodyEnded)[1]
            if failed is not None:
                raise failed from None
            # A group that waits for its cancelled tasks drops a cancellation of the caller.
            if caller and caller.cancelling() > cancelled:
                raise asyncio.CancelledError from None


async def apart(act: Awaitable[None], *, name: str) -> Exception | None:
    """Await `act` in a task of its own and return its failure, None if it succeeded.

    A failure does not affect the caller, its task group or its siblings. A cancellation of the caller cancels `act`. On
    Python 3.11 a task in which a TaskGroup failed looks cancelled for ever; so `act` has its own.
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
