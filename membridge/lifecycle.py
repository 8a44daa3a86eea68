"""Run the parts of a process: start in order, watch, stop in reverse.

A part is a coroutine function `part(ready)` that says when it serves and runs until cancelled. Nothing here knows what
a part does; on failure all siblings are cancelled together, so only nesting may be relied on for order then.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import cast

from membridge.errors import MembridgeError

Ready = Callable[[], None]
Part = Callable[[Ready], Awaitable[None]]


class PartEndedError(RuntimeError):
    """A part that should run for ever returned."""


async def run(parts: Mapping[str, Part], *, stopping: asyncio.Event, on_ready: Ready, drain: float) -> list[str]:
    """Run `parts` until `stopping` is set; return the names of those that needed more than `drain` seconds to stop.

    A stop request that arrives during start-up is honoured: parts not yet started never start.
    Raises ExceptionGroup with the first failure; by then every other part has been cancelled and has cleaned up.
    """
    running: dict[str, asyncio.Task[None]] = {}
    late: list[str] = []
    async with asyncio.TaskGroup() as group:
        stop = group.create_task(_wait(stopping), name="stop request")
        for name, part in parts.items():
            started = asyncio.Event()
            running[name] = group.create_task(_guard(name, part, started.set), name=name)
            waiter = group.create_task(_wait(started), name=f"{name} ready")
            await asyncio.wait({waiter, stop}, return_when=asyncio.FIRST_COMPLETED)
            if stop.done():
                waiter.cancel()
                break
        else:
            on_ready()
        await stop
        for name, task in reversed(running.items()):
            task.cancel()
            if (await asyncio.wait({task}, timeout=drain))[1]:
                late.append(name)
    return late


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
            failures.append(cause_of(error))

    async with asyncio.TaskGroup() as group:
        group.create_task(kept(), name=name)
    return failures[0] if failures else None


def cause_of(error: Exception) -> Exception:
    """Return the failure that says most of what went wrong: of a group the first error of ours, else the first."""
    leaves = list(_leaves(error))
    return next((leaf for leaf in leaves if isinstance(leaf, MembridgeError)), leaves[0])


def _leaves(error: Exception) -> Iterator[Exception]:
    if not isinstance(error, ExceptionGroup):
        yield error
        return
    for inner in cast("ExceptionGroup[Exception]", error).exceptions:
        yield from _leaves(inner)


async def _guard(name: str, part: Part, ready: Ready) -> None:
    await part(ready)
    raise PartEndedError(f"{name} ended unasked")


async def _wait(event: asyncio.Event) -> None:
    await event.wait()
