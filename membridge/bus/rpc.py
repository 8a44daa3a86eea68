"""Typed requests: an operation of the catalogue, its struct in, its struct out, its errors as ours."""

import secrets
from typing import TypeVar

from membridge.aio.deadline import Deadline
from membridge.bus import bulk
from membridge.bus.caller import CALLER
from membridge.bus.connection import Bus
from membridge.bus.message import Message
from membridge.errors import BusUnavailableError, RemoteError, TooLargeError
from schemas.errors import ErrorCode, ErrorReply
from schemas.subjects import Operation
from schemas.wire import Wire, WireError, decode, encode

Q = TypeVar("Q", bound=Wire)
R = TypeVar("R", bound=Wire)

#: Largest reply that is decoded.
MAX_REPLY = 32 << 20


class RpcClient:
    """Asks others. `on_behalf_of` is whose request is passed on; unset, this connection's own caller asks."""

    def __init__(self, bus: Bus, *, on_behalf_of: str | None = None) -> None:
        self._bus = bus
        self._caller = on_behalf_of if on_behalf_of is not None else bus.options.caller

    async def request(self, op: Operation[Q, R], body: Wire, *, deadline: Deadline | None = None, **tokens: str) -> R:
        """Ask and return the answer.

        Errors: RemoteError with the other side's code, NoResponderError, DeadlineExceededError, BusUnavailableError.
        """
        until = deadline or Deadline.after(op.deadline)
        headers = {"Membridge-Request-Id": secrets.token_hex(8)}
        if self._caller:
            headers[CALLER] = self._caller
        reply = await self._sent(op, op.at(**tokens), encode(body), headers, deadline=until)
        if translate_code := reply.headers.get("Nats-Service-Error-Code"):
            raise RemoteError(_error(reply.body, translate_code, reply.headers.get("Nats-Service-Error", "")))
        try:
            return decode(reply.body, op.reply, limit=MAX_REPLY)
        except WireError as error:
            raise BusUnavailableError(
                f"the answer to {op.name} cannot be read: {error}",
                remedy="upgrade membridge if another node runs a newer version",
            ) from error

    async def _sent(
        self, op: Operation[Q, R], subject: str, body: bytes, headers: dict[str, str], *, deadline: Deadline
    ) -> Message:
        if len(body) <= bulk.room(self._bus):
            return await self._bus.request(subject, body, deadline=deadline, headers=headers)
        try:
            bulk.check(len(body))
        except TooLargeError as error:
            what = f"the {op.largest} is too large" if op.largest else op.name
            raise TooLargeError(f"{what}: {error.message}", field=op.largest) from error
        async with bulk.offered(self._bus, body) as where:
            return await self._bus.request(subject, b"", deadline=deadline, headers=headers | dict(where))


def _error(body: bytes, code: str, message: str) -> ErrorReply:
    try:
        return decode(body, ErrorReply)
    except WireError:
        # A service of another make: only the headers speak.
        known = ErrorCode.INVALID_REQUEST if code.startswith("4") else ErrorCode.INTERNAL
        return ErrorReply(code=known, message=message or f"error {code}")
