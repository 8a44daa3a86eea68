"""The base of every struct that crosses a process boundary, and its JSON form.

Fields are only ever added, with defaults; unknown fields are ignored on decoding; a missing or ill-typed field is
refused with its path. Decoding never looks at more than the bound the caller names.
"""

import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import TypeVar, cast

import msgspec

#: Largest JSON body that any request, reply or KV value may have; NATS' own default limit is 1 MiB.
MAX_BODY_BYTES = 1_048_576


class Wire(msgspec.Struct, frozen=True, kw_only=True):
    """A value that is written to NATS, an object store or `--json` output."""


W = TypeVar("W", bound=Wire)


class WireError(ValueError):
    """A body that does not match its struct; the message and `field` name the field."""

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


def encode(value: Wire) -> bytes:
    """Return the JSON of `value`."""
    return msgspec.json.encode(value)


def decode(body: bytes, kind: type[W], *, limit: int = MAX_BODY_BYTES) -> W:
    """Return the struct of type `kind` that `body` holds; an empty body is the empty object.

    Raises WireError when the body is larger than `limit` bytes, not JSON, or lacks or mistypes a field.
    """
    if len(body) > limit:
        raise WireError(f"body of {len(body)} bytes is over the limit of {limit}")
    try:
        return _decoder(kind).decode(body or b"{}")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _refused(error, kind) from error


@cache
def _decoder(kind: type[W]) -> msgspec.json.Decoder[W]:
    return msgspec.json.Decoder(kind)


def decode_request(body: bytes, kind: type[W], *, limit: int = MAX_BODY_BYTES) -> W:
    """Return the request that `body` holds, as `decode` does; reject text that no database can store.

    That is the NUL character, and half of a surrogate pair: PostgreSQL refuses the one and UTF-8 the other.
    """
    try:
        request = decode(body, kind, limit=limit)
    except WireError as error:
        raise _half_a_pair(body) or error from error
    if b"\\u0000" in body and (path := _first(msgspec.to_builtins(request), "\0")) is not None:
        raise WireError(f"{path} may not contain a NUL character", path)
    return request


def storable(text: str) -> str:
    """Return `text` with U+FFFD for what no database can store: NUL characters and halves of surrogate pairs."""
    whole = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return whole.replace("\0", "\N{REPLACEMENT CHARACTER}")


def is_storable(text: str) -> bool:
    """Whether `text` has nothing that no database can store."""
    return "\0" not in text and (text.isascii() or storable(text) == text)


def shortened(text: str, most: int) -> str:
    """Return `text`, or its beginning and an ellipsis: `most` characters in all."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _half_a_pair(body: bytes) -> WireError | None:
    """Return the error for a body with half of a surrogate pair: msgspec does not say where it is."""
    if b"\\ud" not in body.lower():
        return None
    try:
        path = _first(json.loads(body), "[\ud800-\udfff]")
    except (ValueError, RecursionError):
        return None
    return None if path is None else WireError(f"{path} contains half of a surrogate pair", path)


def _first(value: object, pattern: str) -> str | None:
    """Return the path of the first text in `value` that `pattern` is found in."""
    return next((path for path, text in _texts(value, "") if re.search(pattern, text)), None)


def _texts(value: object, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict):
        for name, part in cast("dict[str, object]", value).items():
            here = f"{path}.{storable(name)}".removeprefix(".")
            yield here, name
            yield from _texts(part, here)
    elif isinstance(value, list):
        for index, part in enumerate(cast("list[object]", value)):
            yield from _texts(part, f"{path}[{index}]")


def convert(fields: Mapping[str, object], kind: type[W]) -> W:
    """Return the struct of type `kind` that plain `fields` make. Raises WireError as `decode` does."""
    try:
        return msgspec.convert(fields, kind)
    except msgspec.ValidationError as error:
        raise _refused(error, kind) from error


def _refused(error: Exception, kind: type[msgspec.Struct]) -> WireError:
    from schemas.refusals import explain  # noqa: PLC0415 - loaded only where something is refused

    refusal = explain(error, kind)
    return WireError(refusal.message, refusal.field)
