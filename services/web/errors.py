"""Errors as HTTP: status and body from the one table in `schemas.errors`.

aiohttp's own refusals become errors of ours first, so that a client sees one form of errors. An unexpected
exception answers `internal` and its request id, nothing else.
"""

import math
import random
import re
from collections.abc import Mapping, Sequence

from aiohttp import web

from membridge.aio.tasks import answerable, cause_of
from membridge.errors import (
    InvalidRequestError,
    MembridgeError,
    MethodNotAllowedError,
    NotFoundError,
    OverloadedError,
    TooLargeError,
    UnavailableError,
)
from membridge.system.logging import get_logger
from schemas.web import ErrorBody, Problem
from schemas.wire import encode, shortened, storable

log = get_logger("membridge.web")

#: Characters of an error's message at most.
MESSAGE = 1_000
#: Seconds after which a client may try again, if nothing more exact is known.
LATER = 1
#: The type of an error body with the members of RFC 9457, for clients that accept it.
PROBLEM = "application/problem+json"
#: A request id that is taken from the client as it is.
REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")
#: On every answer. What a browser shows of them is never cached, framed, or taken for another type.
HEADERS: Mapping[str, str] = {
    "Cache-Control": "no-store",
    "Server": "membridge",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}


class NoSuchMethodError(MethodNotAllowedError):
    """An address that answers other methods than the request's."""

    def __init__(self, method: str, allowed: Sequence[str]) -> None:
        super().__init__(f"this address answers {', '.join(allowed)}, not {method}")
        self.allowed = allowed


def request_id_of(headers: Mapping[str, str]) -> str:
    """Return the client's id of the request, a new one if it sent none or one that a log cannot show."""
    given = headers.get("X-Request-Id", "")
    if given and REQUEST_ID.fullmatch(given):
        return given
    # It finds a request in the log and opens nothing: random bits of the system would cost a call of it.
    return f"{random.getrandbits(64):016x}"


def body_of(error: MembridgeError, request_id: str) -> ErrorBody:
    """Return the body of an answer with `error`."""
    detail, field = (shortened(storable(text), MESSAGE) for text in (error.message, error.field or ""))
    return ErrorBody(error=error.code, detail=detail, remedy=error.remedy, field=field or None, request_id=request_id)


def response_of(error: MembridgeError, request_id: str, *, problem: str | None = None) -> web.Response:
    """Return the answer with `error`; with the path as `problem` it has the members of RFC 9457 too."""
    mapping = error.mapping
    headers = {**HEADERS, "X-Request-Id": request_id}
    if mapping.http == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="membridge"'
    if isinstance(error, UnavailableError):
        seconds = error.seconds if isinstance(error, OverloadedError) else None
        headers["Retry-After"] = str(max(LATER, math.ceil(seconds or LATER)))
    if isinstance(error, NoSuchMethodError):
        headers["Allow"] = ", ".join(error.allowed)
    said = body_of(error, request_id)
    if problem is None:
        return web.Response(status=mapping.http, headers=headers, body=encode(said), content_type="application/json")
    members = {one: getattr(said, one) for one in said.__struct_fields__}
    kind, title = f"urn:membridge:error:{error.code}", error.code.value.replace("_", " ")
    whole = Problem(**members, type=kind, title=title, status=mapping.http, instance=storable(problem)[:MESSAGE])
    return web.Response(status=mapping.http, headers=headers, body=encode(whole), content_type=PROBLEM)


def translated(error: BaseException, operation: str) -> MembridgeError:
    """Return the error for the client: ours unchanged, aiohttp's by its meaning, any other as `internal`."""
    cause = cause_of(error)
    if isinstance(cause, web.HTTPException) and cause.status < 500:
        return _of_aiohttp(cause)
    if isinstance(cause, web.RequestPayloadError):
        return InvalidRequestError("the body could not be read: it ended early, or its chunks are malformed")
    return answerable(error, log, operation=operation)


def _of_aiohttp(error: web.HTTPException) -> MembridgeError:
    match error:
        case web.HTTPNotFound():
            return NotFoundError("there is nothing at this address", remedy="GET /openapi.json lists every route")
        case web.HTTPMethodNotAllowed():
            return NoSuchMethodError(error.method, sorted(error.allowed_methods))
        case web.HTTPRequestEntityTooLarge():
            return TooLargeError("the request is too large")
        case _:
            return InvalidRequestError(f"the request cannot be answered: {error.reason}")
