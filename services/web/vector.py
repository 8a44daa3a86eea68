"""Server-sent events over several streams at once: `id` is the vector of their sequences.

So a client resumes each stream where it was, at any server, without a gap or a double. A frame without data brings the
vector when nothing happened; `reset` and `trouble` say which stream they are about.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import AsyncExitStack, aclosing

import msgspec
from aiohttp import hdrs, web

from membridge.aio.deadline import comes_within
from membridge.bus.errors import StreamMissingError
from membridge.bus.feed import News, Position
from membridge.errors import InvalidRequestError, MembridgeError, NotFoundError
from schemas.errors import AGAIN
from services.web.broadcast import Channel, Source
from services.web.errors import HEADERS, body_of
from services.web.limits import stopping
from services.web.routes import Call
from services.web.sse import RETRY, frame
from services.web.streaming import ID, Streams, id_of, position_in, taken_within

#: Seconds until a stream that does not exist, or cannot be read, is looked for again.
AGAIN_AFTER = 2.0
#: Characters of a vector at most.
LONGEST = 8_000
_NOTHING: list[tuple[int, bytes]] = []


async def send_vector(
    request: web.Request, call: Call, streams: Streams, sources: Mapping[str, Source]
) -> web.StreamResponse:
    """Send the items of all sources to a client until one of both ends; `event` is the name of an item's source."""
    start = _vector_of(request)
    headers = {**HEADERS, "X-Request-Id": call.request_id, "X-Accel-Buffering": "no"}
    response = web.StreamResponse(headers={**headers, hdrs.CONTENT_TYPE: "text/event-stream; charset=utf-8"})
    moved = asyncio.Event()
    # A client that knows other streams, and not one of these, missed what was in it meanwhile.
    feeds = [
        _Feed(name, source, start.get(name), missed=bool(start) and name not in start)
        for name, source in sources.items()
    ]
    vector = {name: id_of(at.seq - 1, at) for name, at in start.items() if name in sources}
    async with streams.opened(call, "events"), AsyncExitStack() as joined:
        call.streaming = True
        await response.prepare(request)
        await response.write(RETRY)
        while streams.may_go_on(call.identity):
            # What comes while the pass below runs sets it again.
            moved.clear()
            for feed in feeds:
                if feed.is_idle():
                    continue
                async with aclosing(feed.pending(streams, joined, moved)) as pieces:
                    async for news in pieces:
                        async with taken_within(streams.limits.slow, request, "stream"):
                            await response.write(_frames(feed.name, news, vector, call.request_id))
            whole = all(feed.channel is not None for feed in feeds)
            heard = await comes_within(moved, streams.limits.heartbeat if whole else AGAIN_AFTER)
            if not heard:
                async with taken_within(streams.limits.slow, request, "stream"):
                    await response.write(_life(vector))
    if not response.prepared:
        raise stopping()
    await response.write_eof()
    return response


class _Feed:
    """One source of a client: its channel once that can be joined, and the client's place there."""

    __slots__ = ("_at", "_missed", "_source", "_told", "channel", "name")

    def __init__(self, name: str, source: Source, at: Position | None, *, missed: bool) -> None:
        self.name, self._source, self._at, self._missed = name, source, at, missed
        self.channel: Channel | None = None
        self._told: MembridgeError | None = None

    async def pending(
        self, streams: Streams, joined: AsyncExitStack, moved: asyncio.Event
    ) -> AsyncGenerator[News[bytes]]:
        """Yield what there is for the client now; `moved` is set when there may be more."""
        if self.channel is None:
            try:
                at = await self._join(streams, joined, moved)
            except (NotFoundError, StreamMissingError):
                # The stream does not exist yet: all that it will have is new.
                self._at = self._at or Position()
                return
            except MembridgeError as error:
                if error.mapping.retry not in AGAIN:
                    raise
                if self._told is None:
                    self._told = error
                    yield News(_NOTHING, self._at or Position(), trouble=error)
                return
            yield News(_NOTHING, at, reset=self._missed)
        channel, at = self.channel, self._at
        if channel is None or at is None:
            return
        if not channel.has(at):
            async with aclosing(streams.broadcast.catch_up(channel, at, streams.limits.heartbeat)) as pieces:
                async for news in pieces:
                    self._at = at = news.next
                    yield news
        for news in self._since(channel, at):
            yield news

    def _since(self, channel: Channel, at: Position) -> Iterator[News[bytes]]:
        """Yield what the channel has from a place on, and why nothing can be read if that is news."""
        items = channel.since(at)
        self._at = channel.end
        if items:
            self._told = None
            yield News(items, self._at)
        if channel.trouble is not None and channel.trouble is not self._told:
            self._told = channel.trouble
            yield News(_NOTHING, self._at, trouble=self._told)

    def is_idle(self) -> bool:
        """Whether there is nothing for the client now."""
        channel = self.channel
        if channel is None or channel.failure is not None:
            return False
        return channel.end == self._at and channel.trouble in {None, self._told}

    async def _join(self, streams: Streams, joined: AsyncExitStack, moved: asyncio.Event) -> Position:
        channel = await joined.enter_async_context(streams.broadcast.joined(self._source))
        at = self._at or channel.end
        if at.seq > channel.end.seq and at.seq > (end := await self._source.end()).seq:
            # It is not where the stream has been: that was wiped.
            at, self._missed = end, True
        channel.heard.add(moved)
        joined.callback(channel.heard.discard, moved)
        self.channel, self._at, self._told = channel, at, None
        return at


def _life(vector: Mapping[str, str]) -> bytes:
    """Return a sign of life, which brings the vector too."""
    return b": alive\nid: " + _id(vector).encode() + b"\n\n" if vector else b": alive\n\n"


def _frames(name: str, news: News[bytes], vector: dict[str, str], request_id: str) -> bytes:
    """Return `news` as sent to a client, and move the vector."""
    frames: list[bytes] = []
    if news.reset:
        vector[name] = id_of(news.begins - 1, news.next)
        frames.append(frame(_id(vector), msgspec.json.encode({"source": name}), b"reset"))
    if news.trouble is not None:
        said = {"source": name, **msgspec.to_builtins(body_of(news.trouble, request_id))}
        return frame("", msgspec.json.encode(said), b"trouble")
    for seq, body in news.items:
        vector[name] = id_of(seq, news.next)
        frames.append(frame(_id(vector), body, name.partition(".")[0].encode()))
    if not frames:
        vector[name] = id_of(news.next.seq - 1, news.next)
        frames.append(_life(vector))
    return b"".join(frames)


def _id(vector: Mapping[str, str]) -> str:
    return ",".join(f"{name}={at}" for name, at in vector.items())


def _vector_of(request: web.Request) -> dict[str, Position]:
    """Return where a client wants to read on in each stream; nothing when it names none."""
    text = request.headers.get("Last-Event-ID") or request.query.get("last_event_id") or ""
    found: dict[str, Position] = {}
    for part in text.split(",") if text else ():
        name, _, at = part.partition("=")
        if len(text) > LONGEST or not name or (matched := ID.fullmatch(at)) is None:
            raise InvalidRequestError(
                "Last-Event-ID is not the id of an item",
                remedy="send the last id that you got, or none",
                field="last_event_id",
            )
        found[name] = position_in(matched)
    return found
