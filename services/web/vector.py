"""A place in several streams at once, and the frames of server-sent events from there on.

`id` is the vector of the streams' sequences, so a client resumes each of them where it was, at any server, without a
gap or a double. A frame without data brings the vector when nothing happened; `reset` and `trouble` say which stream
they are about. A stream without a name is the only one: its `id` is the place in it.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass

import msgspec
from aiohttp import web

from membridge.bus.errors import StreamMissingError
from membridge.bus.feed import News, Position
from membridge.errors import InvalidRequestError, MembridgeError, NotFoundError
from schemas.errors import AGAIN
from services.web.broadcast import Broadcast, Channel, Source
from services.web.errors import body_of
from services.web.sse import frame
from services.web.streaming import ID, id_of, position_in, position_of

#: Seconds until a stream that does not exist, or cannot be read, is looked for again.
AGAIN_AFTER = 2.0
#: Characters of a vector at most.
LONGEST = 8_000
_NOTHING: list[tuple[int, bytes]] = []


@dataclass(frozen=True, slots=True)
class Reading:
    """What every place is read with; `heartbeat` is in seconds."""

    broadcast: Broadcast
    joined: AsyncExitStack
    heartbeat: float


class Reader:
    """A place in each of `sources`, from now on where `start` has none; `moved` is set when there may be more."""

    def __init__(self, sources: Mapping[str, Source], start: Mapping[str, Position], moved: asyncio.Event) -> None:
        # A client that knows other streams, and not one of these, missed what was in it meanwhile.
        self._feeds = [
            _Feed(name, source, start.get(name), moved, missed=bool(start) and name not in start)
            for name, source in sources.items()
        ]
        self._vector = {name: id_of(at.seq - 1, at) for name, at in start.items() if name in sources and at.life}

    async def pending(self, reading: Reading) -> AsyncGenerator[bytes]:
        """Yield the frames of all that there is now. Errors: what ended a channel for good."""
        for feed in self._feeds:
            if feed.is_idle():
                continue
            async with aclosing(feed.pending(reading)) as pieces:
                async for news in pieces:
                    yield self._frames(feed.name, news)

    @property
    def is_whole(self) -> bool:
        """Whether every stream is followed; one that does not exist yet is not."""
        return all(feed.channel is not None for feed in self._feeds)

    def is_at(self, other: "Reader") -> bool:
        """Whether both are at the same place in the same streams."""
        pairs = zip(self._feeds, other._feeds, strict=True)  # noqa: SLF001 - of the same class
        return all(one.channel is another.channel and one.at == another.at for one, another in pairs)

    def place(self) -> dict[str, Position]:
        """Return the place in each stream, where it has one."""
        return {feed.name: feed.at for feed in self._feeds if feed.at is not None}

    def greeting(self) -> bytes:
        """Return what a client that joins here needs to know: where it is, and which streams cannot be read."""
        troubled = [(feed.name, feed.trouble) for feed in self._feeds]
        said = [_trouble(name, error) for name, error in troubled if error is not None]
        return b"".join([self.life(), *said])

    def life(self) -> bytes:
        """Return a sign of life, which brings the vector too."""
        vector = "" if "" in self._vector else _id(self._vector)
        return b": alive\nid: " + vector.encode() + b"\n\n" if vector else b": alive\n\n"

    def _frames(self, name: str, news: News[bytes]) -> bytes:
        """Return `news` as sent to a client, and move the vector."""
        if news.trouble is not None:
            return _trouble(name, news.trouble)
        frames: list[bytes] = []
        if news.reset:
            self._vector[name] = id_of(news.begins - 1, news.next)
            said = msgspec.json.encode({"source": name} if name else {})
            frames.append(frame(_id(self._vector), said, b"reset"))
        for seq, body in news.items:
            self._vector[name] = id_of(seq, news.next)
            frames.append(frame(_id(self._vector), body, name.partition(".")[0].encode()))
        if not frames:
            self._vector[name] = id_of(news.next.seq - 1, news.next)
            frames.append(self.life())
        return b"".join(frames)


class _Feed:
    """One source: its channel once that can be joined, and the place there."""

    __slots__ = ("_again", "_missed", "_moved", "_source", "_told", "at", "channel", "name")

    def __init__(self, name: str, source: Source, at: Position | None, moved: asyncio.Event, *, missed: bool) -> None:
        self.name, self._source, self.at, self._moved, self._missed = name, source, at, moved, missed
        self.channel: Channel | None = None
        self._told: MembridgeError | None = None
        #: When the stream is looked for again.
        self._again = 0.0

    @property
    def trouble(self) -> MembridgeError | None:
        """Why the stream cannot be read at present."""
        return self._told if self.channel is None else self.channel.trouble

    async def pending(self, reading: Reading) -> AsyncGenerator[News[bytes]]:
        """Yield what there is now."""
        if self.channel is None:
            self._again = asyncio.get_running_loop().time() + AGAIN_AFTER / 2
            try:
                at = await self._join(reading)
            except (NotFoundError, StreamMissingError):
                # The stream does not exist yet: all that it will have is new.
                self.at = self.at or Position()
                return
            except MembridgeError as error:
                if error.mapping.retry not in AGAIN:
                    raise
                if self._told is None:
                    self._told = error
                    yield News(_NOTHING, self.at or Position(), trouble=error)
                return
            yield News(_NOTHING, at, reset=self._missed)
        channel, at = self.channel, self.at
        if channel is None or at is None:
            return
        if not channel.has(at):
            async with aclosing(reading.broadcast.catch_up(channel, at, reading.heartbeat)) as pieces:
                async for news in pieces:
                    self.at = at = news.next
                    yield news
        for news in self._since(channel, at):
            yield news

    def _since(self, channel: Channel, at: Position) -> Iterator[News[bytes]]:
        """Yield what the channel has from a place on, and why nothing can be read if that is news."""
        items = channel.since(at)
        self.at = channel.end
        if items:
            self._told = None
            yield News(items, self.at)
        if channel.trouble is not None and channel.trouble is not self._told:
            self._told = channel.trouble
            yield News(_NOTHING, self.at, trouble=self._told)

    def is_idle(self) -> bool:
        """Whether there is nothing to do now."""
        channel = self.channel
        if channel is None:
            return asyncio.get_running_loop().time() < self._again
        return channel.failure is None and channel.end == self.at and channel.trouble in {None, self._told}

    async def _join(self, reading: Reading) -> Position:
        channel = await reading.joined.enter_async_context(reading.broadcast.joined(self._source))
        at = self.at or channel.end
        if at.seq > channel.end.seq and at.seq > (end := await self._source.end()).seq:
            # It is not where the stream has been: that was wiped.
            at, self._missed = end, True
        channel.heard.add(self._moved)
        reading.joined.callback(channel.heard.discard, self._moved)
        self.channel, self.at, self._told = channel, at, None
        return at


def start_of(request: web.Request, sources: Mapping[str, Source]) -> dict[str, Position]:
    """Return where a client wants to read on in each stream; nothing when it names none. Raises InvalidRequestError."""
    if "" in sources:
        at = position_of(request)
        return {} if at is None else {"": at}
    text = request.headers.get("Last-Event-ID") or request.query.get("last_event_id") or ""
    found: dict[str, Position] = {}
    for part in text.split(",") if text else ():
        name, _, place = part.partition("=")
        if len(text) > LONGEST or not name or (matched := ID.fullmatch(place)) is None:
            raise InvalidRequestError(
                "Last-Event-ID is not the id of an item",
                remedy="send the last id that you got, or none",
                field="last_event_id",
            )
        found[name] = position_in(matched)
    return found


def _trouble(name: str, error: MembridgeError) -> bytes:
    # The same bytes go to all clients: none has its own request id.
    said = msgspec.to_builtins(body_of(error, ""))
    return frame("", msgspec.json.encode({"source": name, **said} if name else said), b"trouble")


def _id(vector: Mapping[str, str]) -> str:
    return ",".join(f"{name}={at}" if name else at for name, at in vector.items())
