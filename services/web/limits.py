"""Bounds on the requests of one caller and of all callers together."""

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from membridge.aio.deadline import Deadline, comes_within
from membridge.errors import DeadlineExceededError, MembridgeError, OverloadedError, UnavailableError

#: Callers that one limit remembers; the one that was quiet for longest is forgotten first.
CALLERS = 10_000
#: Seconds that cut-off requests have to answer so.
CUT_OFF = 1.0


def stopping() -> UnavailableError:
    """Return the error of a server that drains."""
    return UnavailableError("the server is stopping", remedy="try again")


@dataclass(frozen=True, slots=True)
class Rate:
    """A bound: `burst` at once, and `per_second` in the long run."""

    per_second: float
    burst: int


class RateLimit:
    """A token bucket for each caller, in bounded memory."""

    def __init__(self, rate: Rate, *, most: int = CALLERS, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._most, self._clock = rate, most, clock
        #: By caller: the tokens it had, and when that was; the one seen last is last.
        self._callers: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._callers)

    def check(self, caller: str) -> None:
        """Raise OverloadedError, with the seconds to wait, when `caller` has no token left; take none."""
        self._tokens(caller, self._clock())

    def take(self, caller: str) -> None:
        """Take a token. Raises OverloadedError with the seconds to wait when there is none."""
        now = self._clock()
        self._callers[caller] = (self._tokens(caller, now) - 1.0, now)
        self._callers.move_to_end(caller)
        if len(self._callers) > self._most:
            self._callers.popitem(last=False)

    def _tokens(self, caller: str, now: float) -> float:
        """Return the tokens of a caller. Raises OverloadedError when it has not one left."""
        burst = float(self._rate.burst)
        tokens, at = self._callers.get(caller, (burst, now))
        tokens = min(burst, tokens + (now - at) * self._rate.per_second)
        if tokens < 1.0:
            raise OverloadedError("too many requests in a short time", seconds=(1.0 - tokens) / self._rate.per_second)
        return tokens


class Flight:
    """One request that is being answered: within its deadline until `answered`, and never after it was cut off.

    Ends as `asyncio.timeout` does, without a timer of its own: it is around every request.
    """

    __slots__ = ("_flights", "_late", "_task", "_what", "at")

    def __init__(self, flights: "Flights", what: str, deadline: Deadline) -> None:
        self._flights, self._what = flights, what
        #: When its time is over, on `time.monotonic()`'s clock.
        self.at = deadline.at
        self._task: asyncio.Task[object] | None = None
        self._late: MembridgeError | None = None

    async def __aenter__(self) -> Self:
        """Begin. Raises OverloadedError at the bound, UnavailableError when the server is stopping."""
        self._task = asyncio.current_task()
        self._flights.begin(self)
        return self

    def answered(self) -> None:
        """Note that there is an answer: sending it has a bound of its own."""
        self.at = math.inf

    def expire(self) -> None:
        """End it now: its time is over."""
        self._end(DeadlineExceededError(f"{self._what} took too long"))

    def cut_off(self) -> None:
        """End it now: the server stops."""
        self._end(stopping())

    def _end(self, error: MembridgeError) -> None:
        self.at = math.inf
        if self._late is None and self._task is not None:
            self._late = error
            self._task.cancel()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End. Raises DeadlineExceededError, or UnavailableError if it was cut off."""
        self._flights.end(self)
        if self._late is None or self._task is None:
            return
        # Another cancellation goes on beside this one.
        if self._task.uncancel() == 0 and kind is asyncio.CancelledError:
            raise self._late from error


class Flights:
    """The requests that are being answered: at most so many at once, and none after a drain.

    One timer is enough for all deadlines: it rings at the nearest one that it knows of, and looks for the next.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._running: set[Flight] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self.draining = False
        self._told: list[tuple[Callable[[], None], asyncio.Event]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._rings_at = math.inf

    def __len__(self) -> int:
        return len(self._running)

    def one(self, what: str, deadline: Deadline) -> Flight:
        """Return the context of answering one request."""
        return Flight(self, what, deadline)

    def begin(self, flight: Flight) -> None:
        """Count a request. Raises OverloadedError at the bound, UnavailableError when the server is stopping."""
        if len(self._running) >= self._most:
            raise OverloadedError("too many requests at once")
        if self.draining:
            raise stopping()
        self._running.add(flight)
        self._idle.clear()
        if flight.at < self._rings_at:
            self._ring_at(flight.at)

    def end(self, flight: Flight) -> None:
        """Count it out."""
        self._running.discard(flight)
        if not self._running:
            self._idle.set()

    def _ring_at(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._rings_at = None, at
        if at < math.inf:
            self._timer = asyncio.get_running_loop().call_later(max(0.0, at - time.monotonic()), self._look)

    def _look(self) -> None:
        now = time.monotonic()
        for flight in self._running:
            if flight.at <= now:
                flight.expire()
        self._ring_at(min((flight.at for flight in self._running), default=math.inf))

    def on_drain(self, act: Callable[[], None], ended: asyncio.Event) -> None:
        """Have `act` called when a drain begins: what would not end by itself ends then, and sets `ended`."""
        self._told.append((act, ended))

    async def drain(self, grace: float) -> int:
        """Let running requests finish for `grace` seconds, then cut them off; return how many were cut off."""
        self.draining = True
        for act, _ in self._told:
            act()
        for _, ended in self._told:
            await comes_within(ended, CUT_OFF)
        if await comes_within(self._idle, grace):
            return 0
        late = set(self._running)
        for flight in late:
            flight.cut_off()
        await comes_within(self._idle, CUT_OFF)
        return len(late)
