"""The application factory: routes in, an aiohttp application out. Each request is answered here.

In order: request id, rates, caller, permission, body within its bound, decoding, handler, answer; all of it within the
route's deadline. Every refusal on the way is an error of the one table.
"""

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from urllib.parse import parse_qs

from aiohttp import hdrs, web
from aiohttp.typedefs import Middleware
from multidict import CIMultiDict, istr

from membridge.aio.deadline import Deadline
from membridge.errors import InvalidRequestError, MembridgeError, TooLargeError, UnsupportedMediaTypeError
from membridge.system.logging import bound, get_logger
from schemas.errors import ErrorCode
from schemas.wire import Wire, encode
from services.web.audit import Audit, entry_of
from services.web.broadcast import Source
from services.web.downloads import Download, send_file
from services.web.errors import HEADERS, PROBLEM, request_id_of, response_of, translated
from services.web.fanout import Fanout
from services.web.identity import ANYBODY
from services.web.limits import Flights
from services.web.metrics import Metrics
from services.web.origins import Origins
from services.web.routes import Call, Endpoint, Kind, Text
from services.web.server import paused
from services.web.streaming import Streams, taken_within
from services.web.websocket import send_messages

log = get_logger("membridge.web")

#: Seconds that a client has to read an answer before it is disconnected.
SEND = 30.0
#: Refusals that are audited even if the request would change nothing.
DENIED = frozenset({ErrorCode.UNAUTHORIZED, ErrorCode.FORBIDDEN})
#: Bytes of an answer that goes into a connection's buffer at once.
SHORT = 32 << 10
#: Fields that a query may have.
MOST_FIELDS = 100
#: The type of bodies.
JSON = "application/json"
#: Names the request in its answer.
REQUEST_ID_HEADER = istr("X-Request-Id")

#: Identifies the caller and checks its rights; raises the refusal, else sets `call.identity`.
Guard = Callable[[web.Request, Endpoint, Call], Awaitable[None]]
Answered = Callable[[web.Request], Awaitable[web.StreamResponse]]

_ENDPOINT: web.RequestKey[Endpoint] = web.RequestKey("endpoint", Endpoint)
_CALL: web.RequestKey[Call] = web.RequestKey("call", Call)


@dataclass(frozen=True, slots=True)
class Kit:
    """What all routes of an application share."""

    guard: Guard
    audit: Audit
    metrics: Metrics
    flights: Flights
    #: For an application with streams.
    streams: Streams | None = None
    #: For an application that pages of other sites may use.
    origins: Origins | None = None


def make_app(endpoints: Sequence[Endpoint], kit: Kit) -> web.Application:
    """Return an application that answers `endpoints`."""
    app = web.Application(middlewares=[_middleware(kit)])
    fanout = None if kit.streams is None else Fanout(kit.streams)
    for endpoint in endpoints:
        route, answer = endpoint.route, partial(_answer, kit, endpoint, _head(endpoint))
        if route.streams:
            if kit.streams is None or fanout is None:
                raise ValueError(f"route {route.name} needs Kit.streams")
            app.router.add_route(route.method.value, route.path, partial(_stream, kit, kit.streams, fanout, endpoint))
            continue
        # HEAD is answered wherever GET is, as HTTP asks.
        methods = [hdrs.METH_GET, hdrs.METH_HEAD] if route.method == hdrs.METH_GET else [route.method.value]
        for method in methods:
            app.router.add_route(method, route.path, answer, expect_handler=_expect)
    if kit.origins is not None and kit.origins.some_elsewhere:
        app.on_response_prepare.append(kit.origins.permit)
        by_path: dict[str, list[str]] = {}
        for endpoint in endpoints:
            by_path.setdefault(endpoint.route.path, []).append(endpoint.route.method.value)
        for path, found in by_path.items():
            app.router.add_route(hdrs.METH_OPTIONS, path, partial(_preflight, kit.origins, found))
    return app


async def _preflight(origins: Origins, methods: Sequence[str], request: web.Request) -> web.StreamResponse:
    return origins.preflight(request, methods, request[_CALL].request_id)


def _middleware(kit: Kit) -> Middleware:
    @web.middleware
    async def outermost(request: web.Request, handler: Answered) -> web.StreamResponse:
        began, request_id = time.perf_counter(), request_id_of(request.headers)
        request[_CALL] = call = Call(request_id, Deadline.after(SEND), request.remote or "", secure=request.secure)
        code = ""
        with bound(request_id=request_id):
            try:
                response = await handler(request)
            except Exception as error:
                if isinstance(error, ConnectionError) and (request.transport is None or request.transport.is_closing()):
                    log.debug("client gone", operation=_name(request), address=call.address)
                    raise
                refused = translated(error, _name(request))
                if call.streaming:
                    # Too late for an answer: the client sees its connection end.
                    log.debug("stream ended", operation=_name(request), reason=refused.message)
                    raise ConnectionResetError(refused.message) from error
                code = refused.code.value
                await _audit_refusal(kit, request, call, refused)
                response = await _refuse(request, refused, call)
            took = time.perf_counter() - began
            kit.metrics.answered(_name(request), request.method, response.status, None if call.streaming else took)
            log.debug(
                "request answered",
                operation=_name(request),
                outcome=response.status,
                code=code,
                by=call.identity.actor,
                address=call.address,
                seconds=round(took, 4),
            )
            return response

    return outermost


async def _audit_refusal(kit: Kit, request: web.Request, call: Call, error: MembridgeError) -> None:
    route = request[_ENDPOINT].route if _ENDPOINT in request else None
    known = call.identity is not ANYBODY and error.code is not ErrorCode.RATE_LIMITED
    # Of unknown callers only wrong keys, which are rare: other refusals could fill the audit.
    if route is not None and (call.wrong_key or (known and (route.writes or error.code in DENIED))):
        await kit.audit(entry_of(route, request.path, call, error.code.value))


def _name(request: web.Request) -> str:
    return request[_ENDPOINT].route.name if _ENDPOINT in request else "unmatched"


async def _stream(
    kit: Kit, streams: Streams, fanout: Fanout, endpoint: Endpoint, request: web.Request
) -> web.StreamResponse:
    request[_ENDPOINT], call, route = endpoint, request[_CALL], endpoint.route
    call.deadline = Deadline.after(route.deadline)
    async with call.deadline.scope(route.name):
        await kit.guard(request, endpoint, call)
        source = await endpoint.handler(route.parse(request.match_info, _query(request), b""), call)
    if isinstance(source, Download):
        return await send_file(request, call, streams, source, route.content_type)
    if isinstance(source, Source) and route.kind is Kind.SOCKET:
        return await send_messages(request, call, streams, source)
    return await fanout.send(request, call, {"": source} if isinstance(source, Source) else source)


async def _answer(kit: Kit, endpoint: Endpoint, head: "CIMultiDict[str]", request: web.Request) -> web.StreamResponse:
    request[_ENDPOINT], call, route = endpoint, request[_CALL], endpoint.route
    call.deadline = Deadline.after(route.deadline)
    async with kit.flights.one(route.name, call.deadline) as flight:
        await kit.guard(request, endpoint, call)
        body = await _body(request, endpoint)
        reply = await endpoint.handler(route.parse(request.match_info, _query(request), body), call)
        flight.answered()
        if route.writes:
            await kit.audit(entry_of(route, request.path, call, "ok"))
        return await _send(request, _response(endpoint, head, reply, call))


def _query(request: web.Request) -> dict[str, list[str]]:
    if not request.rel_url.raw_query_string:
        return {}
    try:
        return parse_qs(request.rel_url.raw_query_string, keep_blank_values=True, max_num_fields=MOST_FIELDS)
    except ValueError as error:
        raise InvalidRequestError(f"the query has more than {MOST_FIELDS} fields") from error


async def _expect(request: web.Request) -> None:
    """Do nothing yet: a client gets its `100 Continue` only once it may send a body at all."""


async def _body(request: web.Request, endpoint: Endpoint) -> bytes:
    """Return the body; raise TooLargeError at the first byte over the bound, whatever the headers say."""
    most = endpoint.route.most_bytes if endpoint.route.has_body else 0
    # A form of a page needs no permission to be sent here: also an empty one is refused.
    if endpoint.route.has_body and request.headers.get(hdrs.CONTENT_TYPE) and request.content_type != JSON:
        raise UnsupportedMediaTypeError(f"the body is {request.content_type}, not JSON")
    if not request.can_read_body:
        return b""
    if (request.content_length or 0) > most:
        raise TooLargeError(f"the body of {request.content_length:,} bytes is over the limit of {most:,}")
    if endpoint.route.has_body and request.content_type != JSON:
        raise UnsupportedMediaTypeError("the body has no content type: send it as JSON")
    if request.headers.get(hdrs.CONTENT_ENCODING, "identity") != "identity":
        raise UnsupportedMediaTypeError("the body is compressed")
    if request.headers.get(hdrs.EXPECT, "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0
    parts: list[bytes] = []
    size = 0
    async for part in request.content.iter_any():
        size += len(part)
        if size > most:
            raise TooLargeError(f"the body is over the limit of {most:,} bytes")
        parts.append(part)
    return b"".join(parts)


def _head(endpoint: Endpoint) -> "CIMultiDict[str]":
    """Return the headers that all answers of a route have."""
    return CIMultiDict({**HEADERS, hdrs.CONTENT_TYPE: endpoint.route.content_type})


def _response(endpoint: Endpoint, head: "CIMultiDict[str]", reply: Wire, call: Call) -> web.Response:
    body = reply.body.encode() if isinstance(reply, Text) else encode(reply)
    response = web.Response(status=endpoint.route.status, body=body, headers=head)
    response.headers[REQUEST_ID_HEADER] = call.request_id
    for name, value in call.headers:
        response.headers.add(name, value)
    return response


async def _refuse(request: web.Request, error: MembridgeError, call: Call) -> web.StreamResponse:
    problem = request.path if PROBLEM in request.headers.get(hdrs.ACCEPT, "") else None
    response = response_of(error, call.request_id, problem=problem)
    if not request.content.is_eof():
        # The rest of the body is not read: the connection ends with this answer.
        response.force_close()
    return await _send(request, response)


async def _send(request: web.Request, response: web.StreamResponse) -> web.StreamResponse:
    """Send an answer; disconnect a client that does not read it."""
    if isinstance(response, web.Response) and (response.content_length or 0) < SHORT and not paused(request):
        # It goes into the buffer of the connection, which is free: there is nothing to wait for.
        await response.prepare(request)
        await response.write_eof()
        return response
    async with taken_within(SEND, request, "answer"):
        await response.prepare(request)
        await response.write_eof()
    return response
