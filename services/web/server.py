"""Listening, and stopping without losing an answer.

aiohttp bounds neither how long a client may take to send its headers once a connection is kept, nor how many
connections there are; both bounds are here. What its parser refuses is answered in the form of every other error.
"""

import asyncio
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import cast

from aiohttp import web

from membridge.errors import InvalidRequestError, UnavailableError
from membridge.system.logging import get_logger
from services.web.errors import request_id_of, response_of
from services.web.limits import Flights

log = get_logger("membridge.web")

#: Seconds that a connection may be without a whole request: slow headers and idle clients alike.
IDLE = 30.0
#: Bytes of the request line and of one header, and how many headers there may be.
LINE, FIELD, FIELDS = 8_190, 8_190, 64
#: Seconds for which the rest of a refused body is read, so that the client sees the refusal.
LINGER = 1.0
#: Connections at once.
CONNECTIONS = 4_096
#: Seconds that running requests may take at a stop.
GRACE = 10.0


@dataclass(frozen=True, slots=True)
class Listening:
    """Where to listen, and the bounds of a connection."""

    host: str = "127.0.0.1"
    #: 0 for any that is free.
    port: int = 0
    tls: ssl.SSLContext | None = None
    idle: float = IDLE
    most_connections: int = CONNECTIONS
    grace: float = GRACE
    linger: float = LINGER


class _Connection(web.RequestHandler):
    """A connection, with our errors and a bound on how many there are."""

    __slots__ = ("_most",)

    def __init__(self, manager: web.Server, listening: Listening) -> None:
        super().__init__(
            manager,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=listening.idle,
            max_line_size=LINE,
            max_field_size=FIELD,
            max_headers=FIELDS,
            lingering_time=listening.linger,
            auto_decompress=False,
        )
        self._most = listening.most_connections

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if self._manager is not None and len(self._manager.connections) >= self._most:
            log.warning("connection refused", reason=f"there are {self._most} already")
            cast("asyncio.Transport", transport).abort()
            self._manager = None
            return
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """Accept the data of a running request, also at a stop, when aiohttp would drop it."""
        ends = self._close
        self._close = ends and not self._request_in_progress
        super().data_received(data)
        self._close = ends or self._close

    def detach(self) -> asyncio.Transport:
        """Hand the connection over: aiohttp forgets it, and the request that it is answering ends without a word."""
        transport, self.transport = self.transport, None
        if transport is None:
            raise ConnectionResetError("the client is gone")
        # Without its transport it closes nothing.
        self.connection_lost(None)
        return transport

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what aiohttp's parser refuses."""
        detail = " ".join((message or str(exc) or "the request is not HTTP").split())
        log.debug("request refused", reason=detail, outcome=status, address=request.remote)
        error = InvalidRequestError(f"the request is not valid HTTP: {detail}")
        response = response_of(error, request_id_of(request.headers))
        response.force_close()
        return response


def detached(request: web.Request) -> asyncio.Transport:
    """Take the connection of a request whose head is sent from aiohttp. Raises ConnectionResetError if it has ended."""
    return cast("_Connection", request.protocol).detach()


def paused(request: web.Request) -> bool:
    """Whether the client of a request has not read what it was sent before."""
    return cast("_Connection", request.protocol).writing_paused


@asynccontextmanager
async def serve(app: web.Application, flights: Flights, listening: Listening) -> AsyncGenerator[tuple[str, int]]:
    """Answer during the body, which gets the host and the port. Raises UnavailableError when the address is taken.

    However the body ends, no further connection is accepted, running requests have `grace` seconds left, and the rest
    is answered with `unavailable`.
    """
    runner = web.AppRunner(app, shutdown_timeout=listening.linger)
    await runner.setup()
    manager = cast("web.Server", runner.server)
    try:
        server = await _bound(manager, listening)
        try:
            host, port = server.sockets[0].getsockname()[:2]
            yield str(host), int(port)
        finally:
            server.close()
            # Idle connections end now, busy ones with their answer.
            manager.pre_shutdown()
            if late := await flights.drain(listening.grace):
                log.warning("requests cut off", rows=late)
    finally:
        await runner.cleanup()


async def _bound(manager: web.Server, listening: Listening) -> asyncio.Server:
    try:
        return await asyncio.get_running_loop().create_server(
            lambda: _Connection(manager, listening), listening.host, listening.port, ssl=listening.tls, backlog=1_024
        )
    except OSError as error:
        reason = (error.strerror or str(error)).rpartition(": ")[2]
        raise UnavailableError(
            f"cannot listen at {listening.host}:{listening.port}: {reason}",
            remedy="stop what listens there, or set another address: `membridge config show` names the setting",
        ) from error
