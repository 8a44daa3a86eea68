"""Blocking work off the event loop: one bounded pool of threads for SQLite, hashing and compression.

A call that is cancelled while its thread runs waits for the thread, because nothing may reuse files during a copy. A
call that is cancelled while it waits for a thread never runs.
"""

import asyncio
import functools
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

from membridge.system import files

P = ParamSpec("P")
T = TypeVar("T")

#: Threads at once: a copy and a merge side by side, and one for short look-ups.
THREADS = 3

_POOL = ThreadPoolExecutor(THREADS, thread_name_prefix="blocking")


async def run(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run `function` in the pool and return its result.

    A cancellation is raised after the thread has ended and closed its files; at once if no thread has begun yet. Long
    functions take a `Deadline` and check it. An OSError about a file that the function did not translate becomes
    DiskFullError or FileAccessError.
    """
    return await _result(_POOL, functools.partial(function, *args, **kwargs))


async def apart(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run `function` as `run` does, but in a thread of its own: it waits for what threads of the pool do.

    Its caller makes sure that it ends when it is cancelled.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="apart") as thread:
        return await _result(thread, functools.partial(function, *args, **kwargs))


async def _result(executor: ThreadPoolExecutor, call_of: Callable[[], T]) -> T:
    call = executor.submit(_translating, call_of)
    future = asyncio.wrap_future(call)
    try:
        while not future.done():
            await asyncio.wait({future})
    except asyncio.CancelledError:
        # True only for a call that no thread has begun; none begins it afterwards.
        if not call.cancel():
            await _ended(future)
        raise
    return future.result()


@contextmanager
def beside(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Generator["Future[T]"]:
    """Run a part of blocking work in a thread of its own while the body does the rest; both end before this does.

    Raises what the body or else `function` raised.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="beside") as thread:
        part = thread.submit(function, *args, **kwargs)
        yield part
        part.result()


def _translating(call: Callable[[], T]) -> T:
    try:
        return call()
    except OSError as error:
        if (translated := files.of_file(error)) is None:
            raise
        raise translated from error


async def _ended(future: "asyncio.Future[T]") -> None:
    while not future.done():
        try:
            await asyncio.wait({future})
        except asyncio.CancelledError:
            continue
    if not future.cancelled():
        future.exception()
