"""The base of every struct that crosses a process boundary, and its JSON form.

Fields are only ever added, with defaults; unknown fields are ignored on decoding; a missing or ill-typed field is
refused with its path. Decoding never looks at more than the bound the caller names.
"""

from typing import TypeVar

import msgspec

#: Largest JSON body that any request, reply or KV value may have; NATS' own default limit is 1 MiB.
MAX_BODY_BYTES = 1_048_576


class Wire(msgspec.Struct, frozen=True, kw_only=True):
    """A value that is written to NATS, an object store or `--json` output."""


W = TypeVar("W", bound=Wire)


class WireError(ValueError):
    """Bytes that are not the struct they should be; the message names the field."""


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
        return msgspec.json.decode(body or b"{}", type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise WireError(str(error)) from error
