"""Bounds on the requests of one caller and of all callers together."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from membridge.aio.deadline import Deadline, comes_within
from membridge.errors import DeadlineExceededError, OverloadedError, UnavailableError

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
        tokens = self._tokens(caller)
        if tokens < 1.0:
            raise OverloadedError("too many requests in a short time", seconds=(1.0 - tokens) / self._rate.per_second)

    def take(self, caller: str) -> None:
        """Take a token. Raises OverloadedError with the seconds to wait when there is none."""
        self.check(caller)
        self._callers[caller] = (self._tokens(caller) - 1.0, self._clock())
        self._callers.move_to_end(caller)
        if len(self._callers) > self._most:
            self._callers.popitem(last=False)

    def _tokens(self, caller: str) -> float:
        tokens, at = self._callers.get(caller, (float(self._rate.burst), self._clock()))
        return min(float(self._rate.burst), tokens + (self._clock() - at) * self._rate.per_second)


class Flight:
    """One request that is being answered: within its deadline until `answered`, and never after it was cut off.

    A class, and one time-out for both: it is around every request.
    """

    __slots__ = ("_cut", "_flights", "_scope", "_what")

    def __init__(self, flights: "Flights", what: str, deadline: Deadline) -> None:
        self._flights, self._what, self._cut = flights, what, False
        self._scope = asyncio.timeout(deadline.remaining())

    async def __aenter__(self) -> Self:
        """Begin. Raises OverloadedError at the bound, UnavailableError when the server is stopping."""
        self._flights.begin(self)
        await self._scope.__aenter__()
        return self

    def answered(self) -> None:
        """Note that there is an answer: sending it has a bound of its own."""
        self._scope.reschedule(None)

    def cut_off(self) -> None:
        """End it now."""
        self._cut = True
        self._scope.reschedule(asyncio.get_running_loop().time())

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End. Raises DeadlineExceededError, or UnavailableError if it was cut off."""
        self._flights.end(self)
        try:
            await self._scope.__aexit__(kind, error, trace)
        except TimeoutError as late:
            if self._scope.expired():
                raise (stopping() if self._cut else DeadlineExceededError(f"{self._what} took too long")) from late
            raise


class Flights:
    """The requests that are being answered: at most so many at once, and none after a drain."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._running: set[Flight] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self.draining = False
        self._told: list[tuple[Callable[[], None], asyncio.Event]] = []

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

    def end(self, flight: Flight) -> None:
        """Count it out."""
        self._running.discard(flight)
        if not self._running:
            self._idle.set()

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
