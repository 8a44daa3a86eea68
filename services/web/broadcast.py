"""One reader of a stream for all clients that follow it: a thousand idle clients cost one read, not a thousand.

The newest items are kept in memory, within bounds. A client whose position is among them reads there; any other
catches up by a feed of its own first. Positions are sequences of the stream, so neither way leaves a gap or a double.
"""

import asyncio
from collections import Counter, deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass

from membridge.aio.deadline import Deadline, comes_within
from membridge.aio.tasks import background
from membridge.bus.connection import Bus
from membridge.bus.feed import News, Page, Position, Read, follow, page_of
from membridge.bus.streams import span
from membridge.errors import MembridgeError
from membridge.system.logging import get_logger
from schemas.streams import Stream

log = get_logger("membridge.web")

#: Items that are kept in memory for each subject, and their bytes.
KEPT, KEPT_BYTES = 1_024, 4 << 20
#: Bytes that one read brings, and seconds that it may take.
PAGE, READ = 256 << 10, 5.0

_NOTHING: list[tuple[int, bytes]] = []


@dataclass(frozen=True, slots=True)
class Source:
    """What clients follow: JSON bodies on a subject of a bus, how to read them, and where they end at present."""

    bus: Bus
    subject: str
    read: Read[bytes]
    end: Callable[[], Awaitable[Position]]

    @property
    def key(self) -> tuple[Bus, str]:
        """What tells it from others: accounts have buses of their own with the same subjects."""
        return self.bus, self.subject


def of_stream(bus: Bus, stream: Stream, subject: str) -> Source:
    """Return what a stream keeps on a subject as a source."""

    async def read(start: int) -> Page[bytes]:
        return await page_of(bus, stream, subject, start=start, most_bytes=PAGE, deadline=Deadline.after(READ))

    async def end() -> Position:
        kept = await span(bus, stream, deadline=Deadline.after(READ))
        return Position(kept.last_seq + 1, kept.life)

    return Source(bus, subject, read, end)


class Channel:
    """The newest items of a source, from the sequence `covers` to the position `end`."""

    def __init__(self, source: Source, end: Position) -> None:
        self.source, self.end, self.covers = source, end, end.seq
        #: The error that ended the reader for good, and the reason why nothing can be read at present.
        self.failure: MembridgeError | None = None
        self.trouble: MembridgeError | None = None
        self._items: deque[tuple[int, bytes]] = deque()
        self._bytes = 0
        self._moved = asyncio.Event()
        #: Set at news too: events of clients that follow several channels.
        self.heard: set[asyncio.Event] = set()

    async def run(self) -> None:
        """Read until cancelled."""
        try:
            source = self.source
            async with aclosing(follow(source.bus, source.subject, source.read, start=self.end)) as news:
                async for one in news:
                    self._take(one)
        except MembridgeError as error:
            self._fail(error)
        except Exception:
            log.exception("channel ended", subject=self.source.subject)
            self._fail(MembridgeError("internal error", remedy="read the log of this server"))

    def has(self, at: Position) -> bool:
        """Whether a client at this position can read on here."""
        return at.life == self.end.life and self.covers <= at.seq <= self.end.seq

    def since(self, at: Position) -> list[tuple[int, bytes]]:
        """Return the items from a position on; raise the error that ended the reader."""
        if self.failure is not None:
            raise self.failure
        found: list[tuple[int, bytes]] = []
        for item in reversed(self._items):
            if item[0] < at.seq:
                break
            found.append(item)
        return found[::-1]

    async def moves(self, seconds: float) -> bool:
        """Wait for news for at most `seconds`; return whether there was any."""
        return await comes_within(self._moved, seconds)

    def _take(self, news: News[bytes]) -> None:
        self.trouble = news.trouble
        if news.reset:
            self._items.clear()
            self._bytes = 0
            self.covers = news.begins
        self.end = news.next
        for item in news.items:
            self._items.append(item)
            self._bytes += len(item[1])
        while self._items and (len(self._items) > KEPT or self._bytes > KEPT_BYTES):
            seq, body = self._items.popleft()
            self._bytes -= len(body)
            self.covers = seq + 1
        if news.items or news.reset or news.trouble is not None:
            self._wake()

    def _fail(self, error: MembridgeError) -> None:
        self.failure = error
        self._wake()

    def _wake(self) -> None:
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()
        for one in self.heard:
            one.set()


class Broadcast:
    """The channels that clients follow at present."""

    def __init__(self, group: asyncio.TaskGroup) -> None:
        self._group = group
        self._channels: dict[tuple[Bus, str], tuple[Channel, asyncio.Task[None]]] = {}
        self._clients: Counter[tuple[Bus, str]] = Counter()
        self._opening = asyncio.Lock()

    def __len__(self) -> int:
        return len(self._channels)

    def spawn(self, work: Coroutine[None, None, None], name: str) -> asyncio.Task[None]:
        """Run what clients need until it ends, at the latest with all channels. It must not fail."""
        return self._group.create_task(work, name=name)

    @asynccontextmanager
    async def joined(self, source: Source) -> AsyncGenerator[Channel]:
        """Follow a source with all its other clients during the body. Errors: those of its `end`."""
        key = source.key
        self._clients[key] += 1
        try:
            yield await self._channel(source)
        finally:
            self._clients[key] -= 1
            if not self._clients[key]:
                del self._clients[key]
                if found := self._channels.pop(key, None):
                    found[1].cancel()

    async def _channel(self, source: Source) -> Channel:
        async with self._opening:
            found = self._channels.get(source.key)
            if found is None or found[0].failure is not None:
                channel = Channel(source, await source.end())
                found = self._channels[source.key] = channel, self.spawn(channel.run(), f"channel {source.subject}")
            return found[0]

    async def follow(
        self, channel: Channel, start: Position | None, *, heartbeat: float
    ) -> AsyncGenerator[News[bytes]]:
        """Yield a channel's items from `start` on, from now on when None; news of nothing after `heartbeat` seconds.

        A position that the stream has not reached, or has dropped, is a reset.
        """
        at, told = start or channel.end, channel.trouble
        if at.seq > channel.end.seq and at.seq > (end := await channel.source.end()).seq:
            at = end
            yield News(_NOTHING, at, reset=True)
        while True:
            if not channel.has(at):
                async with aclosing(self.catch_up(channel, at, heartbeat)) as news:
                    async for one in news:
                        at = one.next
                        yield one
                continue
            if items := channel.since(at):
                at, told = channel.end, None
                yield News(items, at)
                continue
            at = channel.end
            if channel.trouble is not None and channel.trouble is not told:
                told = channel.trouble
                yield News(_NOTHING, at, trouble=told)
            if not await channel.moves(heartbeat):
                yield News(_NOTHING, at)

    async def catch_up(self, channel: Channel, at: Position, heartbeat: float) -> AsyncGenerator[News[bytes]]:
        """Yield what is between a position and the channel, from the stream itself."""
        source = channel.source
        async with aclosing(follow(source.bus, source.subject, source.read, start=at, look=heartbeat)) as news:
            async for one in news:
                yield one
                if channel.has(one.next):
                    return


@asynccontextmanager
async def broadcasting() -> AsyncGenerator[Broadcast]:
    """Read for clients during the body."""
    async with background() as group:
        yield Broadcast(group)
