"""The same over a WebSocket, for clients that have no server-sent events: one JSON message for each item.

`{"id", "data"}` is an item, `{"id", "reset": true}` says that something before what follows may be gone, `{"trouble"}`
why nothing can be read at present. A client says nothing but what keeps the connection alive.
"""

import asyncio
from collections.abc import Iterator
from contextlib import aclosing

import msgspec
from aiohttp import WSCloseCode, WSMsgType, web

from membridge.aio.tasks import background
from membridge.bus.feed import News
from membridge.errors import InvalidRequestError
from services.web.broadcast import Source
from services.web.errors import HEADERS, body_of
from services.web.limits import stopping
from services.web.routes import Call
from services.web.streaming import Streams, end, id_of, position_of, taken_within

#: Bytes of a message from a client at most; any is refused.
MESSAGE = 4_096
#: Seconds that a client may take to confirm the end.
CLOSE = 2.0


async def send_messages(request: web.Request, call: Call, streams: Streams, source: Source) -> web.StreamResponse:
    """Send a source's items to a client until one of both ends. Raises InvalidRequestError without an upgrade."""
    start = position_of(request)
    socket = web.WebSocketResponse(
        heartbeat=streams.limits.heartbeat, max_msg_size=MESSAGE, compress=False, timeout=CLOSE
    )
    if not socket.can_prepare(request).ok:
        raise InvalidRequestError(
            "this address accepts only WebSocket connections", remedy="connect with `ws://` or `wss://`"
        )
    socket.headers.update({**HEADERS, "X-Request-Id": call.request_id})
    async with streams.opened(call, "socket") as scope, streams.broadcast.joined(source) as channel:
        call.streaming = True
        await socket.prepare(request)
        async with (
            background() as group,
            aclosing(streams.broadcast.follow(channel, start, heartbeat=streams.limits.heartbeat)) as pieces,
        ):
            group.create_task(_listen(socket, scope), name="socket")
            async for news in pieces:
                if not streams.may_go_on(call.identity):
                    break
                async with taken_within(streams.limits.slow, request, "stream"):
                    for message in _messages(news, call.request_id):
                        await socket.send_str(message)
    if not socket.prepared:
        raise stopping()
    allowed = streams.may_go_on(call.identity)
    await socket.close(code=WSCloseCode.GOING_AWAY if allowed else WSCloseCode.POLICY_VIOLATION)
    return socket


async def _listen(socket: web.WebSocketResponse, scope: asyncio.Timeout) -> None:
    """Answer what keeps the connection alive; end the stream when the client ends it or says anything else."""
    async for message in socket:
        if message.type in {WSMsgType.TEXT, WSMsgType.BINARY, WSMsgType.ERROR}:
            break
    end(scope)


def _messages(news: News[bytes], request_id: str) -> Iterator[str]:
    if news.reset:
        yield _json({"id": id_of(news.begins - 1, news.next), "reset": True})
    if news.trouble is not None:
        yield _json({"trouble": body_of(news.trouble, request_id)})
    for seq, body in news.items:
        yield _json({"id": id_of(seq, news.next), "data": msgspec.Raw(body)})


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
