"""The frames in the pipe between a daemon and its transfer child: length-prefixed msgpack structs.

A frame carries a small body, or the path of a file. The first one carries the options with their secrets, so that the
child's arguments and environment show none.
"""

import asyncio
import struct
from pathlib import Path
from typing import TypeVar

import msgspec

from membridge import errors
from membridge.errors import MembridgeError, StoreUnavailableError
from membridge.objectstore.protocol import MAX_GET_BYTES, ObjectInfo

_LENGTH = struct.Struct(">I")
#: Largest frame: the largest body and the fields around it.
MAX_FRAME = MAX_GET_BYTES + (1 << 20)


class S3Wire(msgspec.Struct, frozen=True, kw_only=True):
    """How to reach a bucket."""

    endpoint: str
    access_key: str
    secret_key: str
    bucket: str
    region: str
    ca_file: str | None = None


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """One request; `verb` is a verb of the protocol, or `cancel`. `seconds` is its deadline."""

    id: int
    verb: str
    key: str = ""
    body: bytes = b""
    path: str = ""
    start: int = 0
    length: int | None = None
    if_absent: bool = True
    after: str = ""
    seconds: float = 60.0
    progress: bool = False


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """An answer to a request: some `items` or `done` bytes on the way; the `last` one has the result or an error."""

    id: int
    last: bool = False
    body: bytes = b""
    items: list[ObjectInfo] = []
    found: bool = False
    done: int = 0
    total: int = 0
    error: str = ""
    message: str = ""
    remedy: str = ""


M = TypeVar("M", S3Wire, Ask, Answer)


def packed(message: msgspec.Struct) -> bytes:
    """Return a message as a frame."""
    body = msgspec.msgpack.encode(message)
    return _LENGTH.pack(len(body)) + body


async def read(reader: asyncio.StreamReader, kind: type[M]) -> M | None:
    """Return the next message, None at the end of the pipe."""
    try:
        (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
        if length > MAX_FRAME:
            return None
        return msgspec.msgpack.decode(await reader.readexactly(length), type=kind)
    except (asyncio.IncompleteReadError, ConnectionError, msgspec.DecodeError):
        return None


def refusal(number: int, error: MembridgeError) -> Answer:
    """Return the answer that carries an error."""
    name = type(error).__name__
    return Answer(id=number, last=True, error=name, message=error.message, remedy=error.remedy)


def raised(answer: Answer) -> MembridgeError:
    """Return the error that an answer carries."""
    kind = getattr(errors, answer.error, None)
    if isinstance(kind, type) and issubclass(kind, MembridgeError) and kind is not errors.RemoteError:
        if kind is errors.LeaseHeldError:
            return MembridgeError(answer.message, remedy=answer.remedy)
        return kind(answer.message, remedy=answer.remedy)
    return StoreUnavailableError(answer.message, remedy=answer.remedy)


def absolute(path: Path) -> str:
    """Return a path that means the same file in the child."""
    return str(path.absolute())
