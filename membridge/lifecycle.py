"""Run the parts of a process: start in order, watch, stop in reverse.

A part is a coroutine function `part(ready)` that says when it serves and runs until cancelled. Nothing here knows what
a part does; on failure all siblings are cancelled together, so only nesting may be relied on for order then.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

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


async def _guard(name: str, part: Part, ready: Ready) -> None:
    await part(ready)
    raise PartEndedError(f"{name} ended unasked")


async def _wait(event: asyncio.Event) -> None:
    await event.wait()
