"""Timers of one term: many instants, one callback of the event loop. A timer that is cancelled never fires."""

import asyncio
import heapq
import itertools
from collections.abc import Callable


class Timers:
    """Calls back when an instant of the loop's clock has come."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._heap: list[tuple[float, int]] = []
        self._calls: dict[int, Callable[[], None]] = {}
        self._numbers = itertools.count()
        self._handle: asyncio.TimerHandle | None = None

    def after(self, seconds: float, call: Callable[[], None]) -> int:
        """Call `call` in `seconds`; return what `cancel` takes."""
        number, at = next(self._numbers), self._loop.time() + max(0.0, seconds)
        self._calls[number] = call
        heapq.heappush(self._heap, (at, number))
        self._arm()
        return number

    def cancel(self, number: int) -> None:
        """Forget a timer; one that fired is fine."""
        self._calls.pop(number, None)
        if len(self._heap) > 2 * len(self._calls) + 64:
            self._heap = [entry for entry in self._heap if entry[1] in self._calls]
            heapq.heapify(self._heap)

    def close(self) -> None:
        """Forget all."""
        self._calls.clear()
        if self._handle is not None:
            self._handle.cancel()

    def _arm(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
        self._handle = self._loop.call_at(self._heap[0][0], self._fire) if self._heap else None

    def _fire(self) -> None:
        now = self._loop.time()
        while self._heap and self._heap[0][0] <= now:
            call = self._calls.pop(heapq.heappop(self._heap)[1], None)
            if call is not None:
                call()
        self._handle = None
        self._arm()
