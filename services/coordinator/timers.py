"""The timers of one tenure, behind one callback of the event loop. A cancelled timer never fires."""

import asyncio
import heapq
import itertools
from collections.abc import Callable

from membridge.system.logging import get_logger

log = get_logger("membridge.coordinator")


class Timers:
    """Calls back at given times of the loop's clock. A callback that raises is logged and does not stop the others."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._heap: list[tuple[float, int]] = []
        self._calls: dict[int, Callable[[], None]] = {}
        self._numbers = itertools.count()
        self._handle: asyncio.TimerHandle | None = None
        self._closed = False

    def after(self, seconds: float, call: Callable[[], None]) -> int:
        """Call `call` in `seconds`; return the number for `cancel`. After `close` nothing is called."""
        number, at = next(self._numbers), self._loop.time() + max(0.0, seconds)
        self._calls[number] = call
        heapq.heappush(self._heap, (at, number))
        if self._heap[0][1] == number:
            self._arm()
        return number

    def cancel(self, number: int) -> None:
        """Cancel a timer; no error if it has fired."""
        self._calls.pop(number, None)
        if len(self._heap) > 2 * len(self._calls) + 64:
            self._heap = [entry for entry in self._heap if entry[1] in self._calls]
            heapq.heapify(self._heap)

    def __len__(self) -> int:
        """Return how many entries are kept, including some of cancelled timers."""
        return len(self._heap)

    def close(self) -> None:
        """Cancel all timers and accept no more."""
        self._closed = True
        self._calls.clear()
        if self._handle is not None:
            self._handle.cancel()

    def _arm(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
        wanted = self._heap and not self._closed
        self._handle = self._loop.call_at(self._heap[0][0], self._fire) if wanted else None

    def _fire(self) -> None:
        now = self._loop.time()
        try:
            while self._heap and self._heap[0][0] <= now:
                call = self._calls.pop(heapq.heappop(self._heap)[1], None)
                if call is not None:
                    _call(call)
        finally:
            self._arm()


def _call(call: Callable[[], None]) -> None:
    try:
        call()
    except Exception:
        log.exception("timer failed")
