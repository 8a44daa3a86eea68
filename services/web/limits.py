"""Bounds on the requests of one caller and of all callers together."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from membridge.aio.deadline import comes_within
from membridge.errors import OverloadedError, UnavailableError

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


class Flights:
    """The requests that are being answered: at most so many at once, and none after a drain."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._scopes: set[asyncio.Timeout] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self.draining = False
        self._told: list[tuple[Callable[[], None], asyncio.Event]] = []

    def __len__(self) -> int:
        return len(self._scopes)

    @asynccontextmanager
    async def one(self) -> AsyncGenerator[None]:
        """Answer one request in the body. Raises OverloadedError at the bound, UnavailableError when it is cut off."""
        if len(self._scopes) >= self._most:
            raise OverloadedError("too many requests at once")
        if self.draining:
            raise stopping()
        scope = asyncio.timeout(None)
        self._scopes.add(scope)
        self._idle.clear()
        try:
            async with scope:
                yield
        except TimeoutError as error:
            if scope.expired():
                raise stopping() from error
            raise
        finally:
            self._scopes.discard(scope)
            if not self._scopes:
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
        late = set(self._scopes)
        now = asyncio.get_running_loop().time()
        for scope in late:
            scope.reschedule(now)
        await comes_within(self._idle, CUT_OFF)
        return len(late)
