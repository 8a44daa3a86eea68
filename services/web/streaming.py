"""The open streams of clients: their bounds, and what ends them.

A stream ends when the key or session that opened it ends, when the server stops, and when its client does not read.
"""

import asyncio
import re
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

from aiohttp import web

from membridge.bus.feed import Position
from membridge.errors import CredentialsError, InvalidRequestError, MembridgeError, OverloadedError
from services.web.broadcast import Broadcast
from services.web.identity import Identity
from services.web.limits import Flights, stopping
from services.web.metrics import Metrics
from services.web.routes import Call

#: The id of an item: the life of its stream and its sequence there, or only the sequence.
ID = re.compile(r"(?:([A-Za-z0-9_.:+-]{1,64})/)?(\d{1,15})")


@dataclass(frozen=True, slots=True)
class StreamLimits:
    """How many streams there may be, in all and of one caller; seconds between two signs of life, and to take one."""

    most: int = 2_000
    most_of_one: int = 64
    heartbeat: float = 15.0
    slow: float = 30.0


@asynccontextmanager
async def taken_within(seconds: float, request: web.Request, what: str) -> AsyncGenerator[None]:
    """Disconnect a client that does not read the `what` that the body sends in time. Raises ConnectionResetError."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        if request.transport is not None:
            request.transport.abort()
        raise ConnectionResetError(f"the client does not read its {what}") from None


class Streams:
    """The open streams of an application. `recheck` raises CredentialsError for a caller that may not read on."""

    def __init__(
        self,
        broadcast: Broadcast,
        recheck: Callable[[Identity], None],
        flights: Flights,
        metrics: Metrics,
        limits: StreamLimits | None = None,
    ) -> None:
        self.broadcast, self.limits = broadcast, limits or StreamLimits()
        self._recheck, self._metrics, self._flights = recheck, metrics, flights
        #: What ends each stream, and its caller.
        self._open: dict[Callable[[], None], Identity] = {}
        self._of_one: Counter[str] = Counter()
        self._none = asyncio.Event()
        self._none.set()
        flights.on_drain(self.end_all, self._none)

    def __len__(self) -> int:
        return len(self._open)

    def admit(self, call: Call, kind: str, end: Callable[[], None]) -> Callable[[], None]:
        """Count a stream, which `end` ends early; return what counts it out.

        Raises OverloadedError at the bounds, UnavailableError when the server is stopping.
        """
        caller = call.identity.key_id or call.address
        if self._flights.draining:
            raise stopping()
        if len(self._open) >= self.limits.most or self._of_one[caller] >= self.limits.most_of_one:
            raise OverloadedError("too many streams are open", seconds=self.limits.heartbeat)
        self._open[end] = call.identity
        self._of_one[caller] += 1
        self._none.clear()
        self._metrics.streams(kind, 1)
        return partial(self._left, end, caller, kind)

    def _left(self, end: Callable[[], None], caller: str, kind: str) -> None:
        del self._open[end]
        self._metrics.streams(kind, -1)
        self._of_one[caller] -= 1
        if not self._of_one[caller]:
            del self._of_one[caller]
        if not self._open:
            self._none.set()

    @asynccontextmanager
    async def opened(self, call: Call, kind: str) -> AsyncGenerator[asyncio.Timeout]:
        """Count a stream during the body, which ends early, without an error, when the stream has to.

        Raises OverloadedError at the bounds, UnavailableError when the server is stopping.
        """
        scope = asyncio.timeout(None)
        left = self.admit(call, kind, partial(end, scope))
        try:
            async with scope:
                yield scope
        except TimeoutError:
            if not scope.expired():
                raise
        finally:
            left()

    def recheck(self) -> None:
        """End the streams of callers that may not read on: a key was revoked, a session ended."""
        for ends, identity in list(self._open.items()):
            if not self.may_go_on(identity):
                ends()

    def may_go_on(self, identity: Identity) -> bool:
        """Whether a caller may read on. While keys cannot be read it may: it gets nothing new then either."""
        try:
            self._recheck(identity)
        except CredentialsError:
            return False
        except MembridgeError:
            return True
        return True

    def end_all(self) -> None:
        """End every stream; clients come back to another server, or to this one once it runs again."""
        for ends in list(self._open):
            ends()


def end(scope: asyncio.Timeout) -> None:
    """End a stream now."""
    if not scope.expired():
        scope.reschedule(asyncio.get_running_loop().time())


def position_of(request: web.Request) -> Position | None:
    """Return where a client wants to read on: after the item that it names, from now on when it names none."""
    text = request.headers.get("Last-Event-ID") or request.query.get("last_event_id") or ""
    if not text:
        return None
    found = ID.fullmatch(text)
    if found is None:
        raise InvalidRequestError(
            "Last-Event-ID is not the id of an item",
            remedy="send the last id that you got, or none",
            field="last_event_id",
        )
    return position_in(found)


def position_in(found: "re.Match[str]") -> Position:
    """Return the position after the item of an id."""
    return Position(int(found[2]) + 1, found[1] or "")


def id_of(seq: int, position: Position) -> str:
    """Return the id of the item `seq` of the life that a position is in."""
    return f"{position.life}/{seq}"
