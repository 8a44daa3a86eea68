"""A route, declared once, as `schemas.subjects` does for NATS.

A `Route` ties method, path, both wire types, permission, bounds and deadline together. The router, the decoder, the
permission check, the OpenAPI document and the table of tests all read the same object.

The request is one struct. Its fields come from the path, then from the query, or from the JSON body where the method
has one; a field of the path cannot be overridden by either.
"""

import re
import string
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Annotated, Any, Generic, TypeVar, get_args, get_origin

import msgspec

from membridge.aio.deadline import Deadline
from membridge.errors import InvalidRequestError
from schemas.errors import ErrorCode
from schemas.web import Role
from schemas.wire import Wire, WireError, convert, decode_request, is_storable
from services.web.broadcast import Source
from services.web.identity import ANYBODY, Identity

Q = TypeVar("Q", bound=Wire)
R = TypeVar("R", bound=Wire)

#: Largest body of a request unless the route says otherwise.
BODY = 64 << 10
#: Methods without a body: their fields come from the query.
_BODILESS = frozenset({"GET", "DELETE"})


class Method(StrEnum):
    """The HTTP method of a route."""

    GET = "GET"
    POST = "POST"
    PUT = "PUT"
    PATCH = "PATCH"
    DELETE = "DELETE"


class Kind(StrEnum):
    """The kind of a route's answer: a JSON body, a text, a file, a stream of server-sent events or over a WebSocket."""

    JSON = "json"
    TEXT = "text"
    FILE = "file"
    EVENTS = "events"
    SOCKET = "socket"


@dataclass(frozen=True, slots=True)
class Permission:
    """The role that a caller needs, and the scope for which; every key has the empty scope."""

    scope: str
    role: Role


@dataclass(slots=True)
class Call:
    """The context of one request, and what its answer gets beside the body."""

    request_id: str
    deadline: Deadline
    #: The address that the request came from.
    address: str
    #: The host name that it asked.
    host: str = ""
    identity: Identity = ANYBODY
    #: Whether the connection is encrypted.
    secure: bool = False
    #: Whether a stream has begun: no other answer can follow.
    streaming: bool = False
    #: Whether it showed a key that is not valid.
    wrong_key: bool = False
    #: Further headers of the answer.
    headers: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])


Handler = Callable[[Any, Call], Awaitable[Any]]


@dataclass(frozen=True)
class Route(Generic[Q, R]):
    """A request that a service answers over HTTP. `path` is a template whose fields are fields of `request`."""

    name: str
    method: Method
    path: str
    request: type[Q]
    reply: type[R]
    summary: str
    #: None if every caller may use it.
    permission: Permission | None
    #: Seconds within which it is answered; a stream has no such bound once it has begun.
    deadline: float = 15.0
    most_bytes: int = BODY
    status: int = 200
    kind: Kind = Kind.JSON
    #: The type of a text.
    content_type: str = "application/json"
    #: Codes of errors that it answers beside those of every route.
    errors: tuple[ErrorCode, ...] = ()

    def bind(self, handler: Callable[[Q, Call], Awaitable[R]]) -> "Endpoint":
        """Return the route with its handler."""
        return Endpoint(self, handler)

    def stream(self, handler: Callable[[Q, Call], Awaitable[Source | Mapping[str, Source]]]) -> "Endpoint":
        """Return the route of a stream, with the handler that names its source; `reply` is the type of an item.

        Several sources, by name, are sent as one stream: only as server-sent events.
        """
        return Endpoint(self, handler)

    def download(self, handler: Callable[[Q, Call], Awaitable[object]]) -> "Endpoint":
        """Return the route of a file, with the handler that opens it."""
        return Endpoint(self, handler)

    @cached_property
    def path_fields(self) -> tuple[str, ...]:
        """The names of the fields that are in the path."""
        return tuple(name for _, name, _, _ in string.Formatter().parse(self.path) if name)

    @property
    def has_body(self) -> bool:
        """Whether its fields come from a JSON body."""
        return self.method.value not in _BODILESS

    @property
    def streams(self) -> bool:
        """Whether it answers with a stream, which a file is too."""
        return self.kind in {Kind.EVENTS, Kind.SOCKET, Kind.FILE}

    @property
    def writes(self) -> bool:
        """Whether its requests change something."""
        return self.method is not Method.GET

    @cached_property
    def fields(self) -> Mapping[str, Any]:
        """The types of the request's fields by their names on the wire."""
        return {one.encode_name: one.type for one in msgspec.structs.fields(self.request)}

    @cached_property
    def _texts(self) -> frozenset[str]:
        """The names of the fields that hold one text, whatever its bounds."""
        return frozenset(name for name, kind in self.fields.items() if _bare(kind) is str)

    @cached_property
    def _lists(self) -> frozenset[str]:
        """The names of the fields that hold several values."""
        return frozenset(name for name, kind in self.fields.items() if get_origin(_bare(kind)) is list)

    def parse(self, path: Mapping[str, str], query: Mapping[str, Sequence[str]], body: bytes) -> Q:
        """Return the request. Raises InvalidRequestError, which names the field at fault."""
        try:
            _check_text(body)
            if self.has_body and not path:
                return decode_request(body, self.request, limit=self.most_bytes)
            texts = {**({} if self.has_body else query), **{name: [value] for name, value in path.items()}}
            plain = {name: self._plain(name, found) for name, found in texts.items() if name in self.fields}
            if self.has_body:
                # Read as any object first, so that its own errors come before those of its fields.
                decode_request(body, _Object, limit=self.most_bytes)
                plain = {**msgspec.json.decode(body or b"{}", type=dict[str, Any]), **plain}
            parsed = convert(plain, self.request)
            return decode_request(msgspec.json.encode(parsed), self.request) if self.has_body else parsed
        except WireError as error:
            raise InvalidRequestError(str(error), field=error.field) from error

    def _plain(self, name: str, values: Sequence[str]) -> object:
        """Return a field's texts as the JSON value that its type asks for."""
        many = name in self._lists
        if len(values) > 1 and not many:
            raise WireError(f"{name} is given {len(values)} times", name)
        if not all(map(is_storable, values)):
            raise WireError(f"{name} may not contain a NUL character or half of a surrogate pair", name)
        if name in self._texts:
            return values[0]
        try:
            return msgspec.to_builtins(msgspec.convert(values if many else values[0], self.fields[name], strict=False))
        except msgspec.ValidationError:
            # Refused once more with all fields, for a message that names this one.
            return list(values) if many else _number(values[0])


def _check_text(body: bytes) -> None:
    """Raise WireError for a body that is not UTF-8, also where it is in a field that nothing reads."""
    try:
        body.decode()
    except UnicodeDecodeError as error:
        raise WireError("the body is not UTF-8") from error


def _number(text: str) -> str | int:
    """Return the whole number in a text, so that its bounds are checked."""
    return int(text) if re.fullmatch(r"-?\d{1,18}", text) else text


class _Object(Wire, frozen=True, kw_only=True):
    """Any JSON object."""


#: A route of any types, as lists of routes hold them.
AnyRoute = Route[Any, Any]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A route and its handler."""

    route: AnyRoute
    handler: Handler


class Text(Wire, frozen=True, kw_only=True):
    """The reply of a route of kind `TEXT`."""

    body: str


def _bare(kind: Any) -> Any:
    """Return a type without its bounds."""
    while get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    return kind
