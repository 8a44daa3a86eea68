"""Server-sent events over several streams at once: `id` is the vector of their sequences.

So a client resumes each stream where it was, at any server, without a gap or a double. A frame without data brings the
vector when nothing happened; `reset` and `trouble` say which stream they are about.
"""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, asynccontextmanager

import msgspec
from aiohttp import hdrs, web

from membridge.aio.tasks import background
from membridge.bus.errors import StreamMissingError
from membridge.bus.feed import News, Position
from membridge.errors import InvalidRequestError, MembridgeError, NotFoundError
from schemas.errors import AGAIN
from services.web.broadcast import Source
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
    # As long as each source has one piece of news here: nothing is buffered for a slow client.
    news: asyncio.Queue[tuple[str, News[bytes]]] = asyncio.Queue(1)
    async with streams.opened(call, "events"), _fed(streams, sources, start, news):
        call.streaming = True
        await response.prepare(request)
        await response.write(RETRY)
        vector = {name: id_of(at.seq - 1, at) for name, at in start.items() if name in sources}
        while streams.may_go_on(call.identity):
            name, one = await news.get()
            if not streams.may_go_on(call.identity):
                break
            async with taken_within(streams.limits.slow, request, "stream"):
                await response.write(_frames(name, one, vector, call.request_id))
    if not response.prepared:
        raise stopping()
    await response.write_eof()
    return response


@asynccontextmanager
async def _fed(
    streams: Streams,
    sources: Mapping[str, Source],
    start: Mapping[str, Position],
    news: "asyncio.Queue[tuple[str, News[bytes]]]",
) -> AsyncGenerator[None]:
    """Read all sources into a queue during the body."""
    async with background() as group:
        for name, source in sources.items():
            # A client that knows other streams, and not this one, missed what was in it meanwhile.
            missed = bool(start) and name not in start
            group.create_task(_feed(streams, name, source, start.get(name), news, missed=missed), name=f"feed {name}")
        yield


async def _feed(
    streams: Streams,
    name: str,
    source: Source,
    at: Position | None,
    news: "asyncio.Queue[tuple[str, News[bytes]]]",
    *,
    missed: bool,
) -> None:
    broadcast, told = streams.broadcast, False
    while True:
        try:
            async with broadcast.joined(source) as channel:
                first = at or channel.end
                await news.put((name, News(_NOTHING, first, reset=missed)))
                missed = told = False
                follow = broadcast.follow(channel, first, heartbeat=streams.limits.heartbeat)
                async with aclosing(follow) as pieces:
                    async for one in pieces:
                        at = one.next
                        await news.put((name, one))
        except (NotFoundError, StreamMissingError):
            # The stream does not exist yet: all that it will have is new.
            at = at or Position()
        except MembridgeError as error:
            if error.mapping.retry not in AGAIN:
                raise
            if not told:
                await news.put((name, News(_NOTHING, at or Position(), trouble=error)))
            told = True
        await asyncio.sleep(AGAIN_AFTER)


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
        frames.append(b": alive\nid: " + _id(vector).encode() + b"\n\n")
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
