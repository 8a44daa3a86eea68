"""Server-sent events over a feed: `id` is the item's place in its stream, so `Last-Event-ID` resumes there.

Beside its items a stream says `reset` when something before them may be gone, and `trouble` when the server cannot read
at present; a comment is a sign of life.
"""

from contextlib import aclosing

import msgspec
from aiohttp import hdrs, web

from membridge.bus.feed import News
from services.web.broadcast import Source
from services.web.errors import HEADERS, body_of
from services.web.limits import stopping
from services.web.routes import Call
from services.web.streaming import Streams, id_of, position_of, taken_within

#: Milliseconds after which a browser reconnects.
RETRY = b"retry: 2000\n\n"
_LIFE = b": alive\n\n"


async def send_events(request: web.Request, call: Call, streams: Streams, source: Source) -> web.StreamResponse:
    """Send a source's items to a client until one of both ends."""
    start = position_of(request)
    headers = {**HEADERS, "X-Request-Id": call.request_id, "X-Accel-Buffering": "no"}
    response = web.StreamResponse(headers={**headers, hdrs.CONTENT_TYPE: "text/event-stream; charset=utf-8"})
    async with streams.opened(call, "events"), streams.broadcast.joined(source) as channel:
        call.streaming = True
        await response.prepare(request)
        await response.write(RETRY)
        async with aclosing(streams.broadcast.follow(channel, start, heartbeat=streams.limits.heartbeat)) as pieces:
            async for news in pieces:
                if not streams.may_go_on(call.identity):
                    break
                async with taken_within(streams.limits.slow, request, "stream"):
                    await response.write(_frames(news, call.request_id))
    if not response.prepared:
        raise stopping()
    # A proper end of the body shows the client that the connection did not break.
    await response.write_eof()
    return response


def _frames(news: News[bytes], request_id: str) -> bytes:
    """Return `news` as sent to a client."""
    frames: list[bytes] = []
    if news.reset:
        frames.append(frame(id_of(news.begins - 1, news.next), b"{}", b"reset"))
    if news.trouble is not None:
        frames.append(frame("", msgspec.json.encode(body_of(news.trouble, request_id)), b"trouble"))
    frames += [frame(id_of(seq, news.next), body) for seq, body in news.items]
    return b"".join(frames) or _LIFE


def frame(name: str, body: bytes, event: bytes = b"") -> bytes:
    """Return one event as it is sent; without a name it is a message."""
    lines = [b"event: " + event] if event else []
    lines += [b"id: " + name.encode()] if name else []
    # A line break in a body would end its field; all three kinds of it do in this format.
    lines += [b"data: " + line for line in body.splitlines() or [b""]]
    return b"\n".join([*lines, b"", b""])
