"""Run the parts of a process: start in order, watch, stop in reverse.

A part is a coroutine function `part(ready)` that calls `ready` once it serves and runs until cancelled. Nothing here
knows what a part does. Parts stop in the same order after a request, a failure and a cancellation: a part may rely on
those before it while it stops.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

Ready = Callable[[], None]
Part = Callable[[Ready], Awaitable[None]]


class PartEndedError(RuntimeError):
    """A part that should run for ever returned."""


async def run(
    parts: Mapping[str, Part],
    *,
    stopping: asyncio.Event,
    on_ready: Ready,
    drain: float,
    on_stopping: Callable[[], None] = lambda: None,
) -> list[str]:
    """Run `parts` until `stopping` is set; return the names of those that needed more than `drain` seconds to stop.

    After a stop request during start-up no further part starts. `on_stopping` is called when stopping begins, for
    whatever reason, before any part is cancelled.
    Raises ExceptionGroup with the failures, after every other part was cancelled and has cleaned up.
    """
    watch = _Watch()
    running: dict[str, asyncio.Task[None]] = {}
    late: list[str] = []
    try:
        async with asyncio.TaskGroup() as group:
            request = group.create_task(watch.hear(stopping), name="stop request")
            try:
                for name, part in parts.items():
                    started = watch.awaited = asyncio.Event()
                    running[name] = group.create_task(watch.run(name, part, started.set), name=name)
                    await started.wait()
                    if watch.over.is_set():
                        break
                else:
                    on_ready()
                await watch.over.wait()
            finally:
                watch.asked = True
                on_stopping()
                request.cancel()
                await _stop(running, drain, late)
    except asyncio.CancelledError:
        if not watch.failures:
            raise
    if watch.failures:
        raise ExceptionGroup("parts failed", watch.failures)
    return late


def awaited_for(seconds: float, part: Part, *, late: Callable[[], None]) -> Part:
    """Return `part`; the parts after it wait `seconds` for it at most. Then `late` is called, and they start."""

    async def run(ready: Ready) -> None:
        def give_up() -> None:
            late()
            ready()

        def serves() -> None:
            limit.cancel()
            ready()

        limit = asyncio.get_running_loop().call_later(seconds, give_up)
        try:
            await part(serves)
        finally:
            limit.cancel()

    return run


class _Watch:
    """Records what ends a run: a request to stop, or the first failure of a part."""

    def __init__(self) -> None:
        self.over = asyncio.Event()
        #: Set when the part that is starting serves, or when it need not be awaited any more.
        self.awaited = asyncio.Event()
        #: Whether parts are being stopped: only then may one return.
        self.asked = False
        self.failures: list[Exception] = []

    async def hear(self, stopping: asyncio.Event) -> None:
        await stopping.wait()
        self._end()

    async def run(self, name: str, part: Part, ready: Ready) -> None:
        try:
            await part(ready)
        except Exception as error:  # noqa: BLE001 - raised by `run`, after the other parts have stopped
            self._fail(error)
        else:
            if not self.asked:
                self._fail(PartEndedError(f"{name} ended unasked"))

    def _fail(self, error: Exception) -> None:
        self.failures.append(error)
        self._end()

    def _end(self) -> None:
        self.over.set()
        self.awaited.set()


async def _stop(running: dict[str, asyncio.Task[None]], drain: float, late: list[str]) -> None:
    """Cancel the parts one after the other, the last one first; add those that need longer than `drain` to `late`.

    Those are cancelled once more at the end, after another `drain` seconds: if a library swallowed the first
    cancellation, the part would run for ever.
    """
    for name, task in reversed(running.items()):
        task.cancel()
        if (await asyncio.wait({task}, timeout=drain))[1]:
            late.append(name)
    if late:
        _, left = await asyncio.wait([running[name] for name in late], timeout=drain)
        for task in left:
            task.cancel()
