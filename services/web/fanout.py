"""Clients of server-sent events: all that are at the same place in the same streams get the same bytes.

A connection leaves aiohttp once its head is sent: then it has no request, no task and no parser, only a transport. A
client that is behind, because it comes back or does not read fast enough, is sent what it lacks by a task of its own,
and joins the others again. So nothing is buffered for a slow client; one that reads nothing at all is cut.
"""

import asyncio
from collections.abc import Callable, Hashable, Mapping
from contextlib import AsyncExitStack, aclosing

from aiohttp import HttpVersion11, hdrs, web

from membridge.aio.deadline import comes_within
from membridge.bus.feed import Position
from membridge.errors import MembridgeError
from membridge.system.logging import get_logger
from services.web.broadcast import Source
from services.web.errors import HEADERS
from services.web.identity import Identity
from services.web.limits import stopping
from services.web.routes import Call
from services.web.server import detached
from services.web.sse import RETRY
from services.web.streaming import Streams
from services.web.vector import AGAIN_AFTER, Reader, Reading, start_of

log = get_logger("membridge.web")

#: Seconds between two looks whether a client may still read: a key expires without news.
CHECK = 1.0


class Head(web.StreamResponse):
    """The head of a stream; its body is not aiohttp's."""

    async def write_eof(self, data: bytes = b"") -> None:
        """Do nothing: the stream goes on."""
        del data


class Client(asyncio.Protocol):
    """A connection that only receives."""

    __slots__ = ("_chunked", "_counted", "_left", "_transport", "ended", "hub", "identity", "task", "writable")

    def __init__(self, hub: "Hub", identity: Identity, *, chunked: bool) -> None:
        self.hub, self._chunked, self.identity = hub, chunked, identity
        self._transport: asyncio.Transport | None = None
        self._counted = False
        #: What counts it out of the streams.
        self._left: Callable[[], None] | None = None
        self.ended = False
        #: Of one that is behind: what sends it what it lacks, and whether it takes any.
        self.task: asyncio.Task[None] | None = None
        self.writable: asyncio.Event | None = None

    def enter(self, streams: Streams, call: Call) -> None:
        """Count it. Raises OverloadedError at the bounds, UnavailableError when the server is stopping."""
        self.hub.enter()
        self._counted = True
        self._left = streams.admit(call, "events", self.end)

    def check(self) -> None:
        """Raise UnavailableError if it was ended before it began."""
        if self.ended:
            raise stopping()

    def take(self, transport: asyncio.Transport) -> None:
        """Go on with a connection whose head is sent."""
        self._transport = transport
        transport.set_protocol(self)
        if transport.is_closing():
            self.gone()

    def send(self, frames: bytes, chunk: bytes) -> None:
        """Send frames, or the same as a chunk of HTTP/1.1."""
        if self._transport is not None and not self.ended:
            self._transport.write(chunk if self._chunked else frames)

    def end(self) -> None:
        """End the stream: properly, unless the client does not read."""
        if self._transport is not None and not self.ended:
            if self.writable is not None and not self.writable.is_set():
                self._transport.abort()
            elif self._chunked:
                self._transport.write(b"0\r\n\r\n")
            self._transport.close()
        self.ended = True

    def abort(self) -> None:
        """Cut the connection."""
        self.ended = True
        if self._transport is not None:
            self._transport.abort()

    def gone(self) -> None:
        """Count it out; more than once does no harm."""
        self.ended = True
        if self.task is not None:
            self.task.cancel()
        if self._left is not None:
            left, self._left = self._left, None
            left()
        if self._counted:
            self._counted = False
            self.hub.leave(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        del exc
        self._transport = None
        self.gone()

    def pause_writing(self) -> None:
        """Note that the client reads slower than the others."""
        self.hub.stall(self)

    def resume_writing(self) -> None:
        """Note that it has taken what it was sent."""
        if self.writable is not None:
            self.writable.set()


class Hub:
    """The clients of one set of sources."""

    def __init__(self, streams: Streams, sources: Mapping[str, Source], ended: "Callable[[Hub], None]") -> None:
        self._streams, self._sources, self._ended = streams, sources, ended
        self._moved = asyncio.Event()
        self._reader = Reader(sources, {}, self._moved)
        #: Those at the reader's place, what wakes those that are behind, and how many there are of both.
        self._clients: set[Client] = set()
        self._behind: set[asyncio.Event] = set()
        self._count = 0
        self._checked = 0.0
        self._failure: MembridgeError | None = None
        self._begun = asyncio.Event()
        self._task = streams.broadcast.spawn(self._run(), name="clients of events")

    def enter(self) -> None:
        """Count a client."""
        self._count += 1

    async def begun(self) -> None:
        """Wait until all streams were looked for: what comes later is not missed. Raises what ended the hub."""
        await self._begun.wait()
        if self._failure is not None:
            raise self._failure

    def leave(self, client: Client) -> None:
        """Count a client out; the last one ends the hub."""
        self._clients.discard(client)
        self._count -= 1
        if not self._count:
            self._ended(self)
            self._task.cancel()

    def add(self, client: Client, start: Mapping[str, Position]) -> None:
        """Send a client what comes from `start` on, from now on if that is empty."""
        if start:
            client.writable = asyncio.Event()
            client.writable.set()
            self._catch_up(client, start)
        else:
            self._clients.add(client)
            greeting = self._reader.greeting()
            client.send(greeting, _chunk(greeting))

    def stall(self, client: Client) -> None:
        """Send a client nothing until it has taken what it was sent; then what it lacks."""
        if client.writable is not None:
            client.writable.clear()
        elif client in self._clients:
            self._clients.discard(client)
            client.writable = asyncio.Event()
            self._catch_up(client, self._reader.place())

    async def _run(self) -> None:
        try:
            async with AsyncExitStack() as joined:
                limits = self._streams.limits
                reading = Reading(self._streams.broadcast, joined, limits.heartbeat)
                while True:
                    # What comes while the pass below runs sets it again.
                    self._moved.clear()
                    async with aclosing(self._reader.pending(reading)) as pieces:
                        async for frames in pieces:
                            self._send(frames)
                    self._begun.set()
                    for moved in self._behind:
                        moved.set()
                    seconds = limits.heartbeat if self._reader.is_whole else min(AGAIN_AFTER, limits.heartbeat)
                    if not await comes_within(self._moved, seconds):
                        self._send(self._reader.life())
        except MembridgeError as error:
            self._fail(error)
        except Exception:
            log.exception("events ended")
            self._fail(MembridgeError("internal error", remedy="read the log of this server"))

    def _fail(self, error: MembridgeError) -> None:
        """End every client without a proper end: each comes back, to a new hub."""
        self._failure = error
        self._ended(self)
        self._begun.set()
        for client in list(self._clients):
            client.abort()

    def _send(self, frames: bytes) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._checked > CHECK:
            self._checked = now
            callers = {client.identity for client in self._clients}
            over = {caller for caller in callers if not self._streams.may_go_on(caller)}
            for client in [one for one in self._clients if one.identity in over]:
                client.end()
        chunk = _chunk(frames)
        # A client that is full leaves the set meanwhile.
        for client in list(self._clients):
            client.send(frames, chunk)

    def _catch_up(self, client: Client, start: Mapping[str, Position]) -> None:
        client.task = self._streams.broadcast.spawn(self._sent(client, start), name="client that is behind")

    async def _sent(self, client: Client, start: Mapping[str, Position]) -> None:
        """Send a client what it lacks until it is where the others are."""
        moved, limits = asyncio.Event(), self._streams.limits
        reader = Reader(self._sources, start, moved)
        self._behind.add(moved)
        try:
            async with AsyncExitStack() as joined:
                reading = Reading(self._streams.broadcast, joined, limits.heartbeat)
                # One that was stalled takes what it has first.
                while await self._taken(client):
                    moved.clear()
                    async with aclosing(reader.pending(reading)) as pieces:
                        async for frames in pieces:
                            client.send(frames, _chunk(frames))
                            if not await self._taken(client):
                                return
                    if self._failure is None and reader.is_at(self._reader):
                        client.writable = client.task = None
                        self._clients.add(client)
                        return
                    if not await comes_within(moved, min(AGAIN_AFTER, limits.heartbeat)):
                        life = reader.life()
                        client.send(life, _chunk(life))
        except MembridgeError as error:
            log.debug("stream ended", reason=error.message)
            client.abort()
        except Exception:
            log.exception("stream ended")
            client.abort()
        finally:
            self._behind.discard(moved)

    async def _taken(self, client: Client) -> bool:
        """Wait until a client may be sent more; cut one that takes nothing. Return whether it goes on."""
        if client.writable is not None and not await comes_within(client.writable, self._streams.limits.slow):
            log.debug("stream ended", reason="the client does not read it")
            client.abort()
        elif not self._streams.may_go_on(client.identity):
            client.end()
        return not client.ended


class Fanout:
    """The hubs of an application."""

    def __init__(self, streams: Streams) -> None:
        self._streams = streams
        self._hubs: dict[Hashable, Hub] = {}

    async def send(self, request: web.Request, call: Call, sources: Mapping[str, Source]) -> web.StreamResponse:
        """Send the head of a stream of all sources; `event` is the name of an item's source. It goes on by itself."""
        start = start_of(request, sources)
        client = Client(self._hub_of(sources), call.identity, chunked=request.version >= HttpVersion11)
        headers = {**HEADERS, "X-Request-Id": call.request_id, "X-Accel-Buffering": "no"}
        response = Head(headers={**headers, hdrs.CONTENT_TYPE: "text/event-stream; charset=utf-8"})
        response.force_close()
        try:
            client.enter(self._streams, call)
            await client.hub.begun()
            client.check()
            call.streaming = True
            await response.prepare(request)
            await response.write(RETRY)
            client.take(detached(request))
        except BaseException:
            client.gone()
            raise
        if not client.ended:
            client.hub.add(client, start)
        return response

    def _hub_of(self, sources: Mapping[str, Source]) -> Hub:
        key = tuple((name, source.key) for name, source in sources.items())

        def ended(hub: Hub) -> None:
            # After a failure there may be another one.
            if self._hubs.get(key) is hub:
                del self._hubs[key]

        if key not in self._hubs:
            self._hubs[key] = Hub(self._streams, sources, ended)
        return self._hubs[key]


def _chunk(frames: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(frames), frames)
