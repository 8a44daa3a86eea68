"""Typed requests: an operation of the catalogue, its struct in, its struct out, its errors as ours."""

import secrets
from typing import TypeVar

from membridge.bus.connection import Bus
from membridge.deadline import Deadline
from membridge.errors import BusUnavailableError, RemoteError
from schemas.errors import ErrorCode, ErrorReply
from schemas.subjects import Operation
from schemas.wire import Wire, WireError, decode, encode

Q = TypeVar("Q", bound=Wire)
R = TypeVar("R", bound=Wire)

#: Largest reply that is decoded.
MAX_REPLY = 8 << 20


class Client:
    """Asks others."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def request(self, op: Operation[Q, R], body: Wire, *, deadline: Deadline | None = None, **tokens: str) -> R:
        """Ask and return the answer.

        Errors: RemoteError with the other side's code, NoResponderError, DeadlineExceededError, BusUnavailableError.
        """
        until = deadline or Deadline.after(op.deadline)
        headers = {"Membridge-Request-Id": secrets.token_hex(8)}
        reply = await self._bus.request(op.at(**tokens), encode(body), deadline=until, headers=headers)
        if translate_code := reply.headers.get("Nats-Service-Error-Code"):
            raise RemoteError(_error(reply.body, translate_code, reply.headers.get("Nats-Service-Error", "")))
        try:
            return decode(reply.body, op.reply, limit=MAX_REPLY)
        except WireError as error:
            raise BusUnavailableError(f"the answer to {op.name} cannot be read: {error}") from error


def _error(body: bytes, code: str, message: str) -> ErrorReply:
    try:
        return decode(body, ErrorReply)
    except WireError:
        # A service of another make: only the headers speak.
        known = ErrorCode.INVALID_REQUEST if code.startswith("4") else ErrorCode.INTERNAL
        return ErrorReply(code=known, message=message or f"error {code}")
