"""One connection to the daemon's socket: `POST /session-start` in HTTP/1.1, answered in time whatever the work does.

Its two clients are ours, so a few bounded lines are enough here; aiohttp would cost a node 25 MiB.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from membridge.aio.deadline import Deadline
from membridge.errors import DeadlineExceededError
from membridge.system.logging import get_logger
from schemas.hooks import SessionStartReply, SessionStartRequest
from schemas.wire import WireError, decode_request, encode

log = get_logger("membridge.hooks")

#: Bytes of a request's head and body at most.
MOST_HEAD, MOST_BODY = 16 << 10, 64 << 10
#: Seconds that a client may take to send its request, and to take the answer.
SEND, RECEIVE = 2.0, 2.0
_READ = 16 << 10
_REASONS = {
    200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 411: "Length Required",
    413: "Content Too Large", 431: "Request Header Fields Too Large", 500: "Internal Server Error",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Answering:
    """What answers a session start: `answer` does the work, `late` stands in for it after `patience` seconds."""

    answer: Callable[[SessionStartRequest], Awaitable[SessionStartReply]]
    late: Callable[[], SessionStartReply]
    patience: float


async def answer(
    connection: socket.socket, group: asyncio.TaskGroup, answering: Answering, free: Callable[[], None]
) -> None:
    """Answer one request and close the connection; call `free` when nothing of it is left to do.

    Work that takes too long is cancelled and left to the `group`.
    """
    with connection:
        connection.settimeout(0)
        try:
            async with Deadline.after(SEND).scope("reading a request"):
                request = await _request(connection)
        except _RefusedError as refused:
            free()
            await _send(connection, refused.status, SessionStartReply())
            return
        except (OSError, DeadlineExceededError):
            free()
            return
        work = group.create_task(_worked(request, answering, free), name="session start's work")
        await asyncio.wait({work}, timeout=answering.patience)
        if work.done() and not work.cancelled():
            await _send(connection, *work.result())
            return
        # Not awaited: what it waits for may be a thread that hangs.
        work.cancel()
        await _send(connection, 200, answering.late())


async def _worked(
    request: SessionStartRequest, answering: Answering, free: Callable[[], None]
) -> tuple[int, SessionStartReply]:
    try:
        return 200, await answering.answer(request)
    except Exception:
        log.exception("session start not answered")
        return 500, SessionStartReply()
    finally:
        free()


async def _send(connection: socket.socket, status: int, reply: SessionStartReply) -> None:
    body = encode(reply)
    head = (
        f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        "Connection: close\r\n\r\n"
    )
    try:
        async with Deadline.after(RECEIVE).scope("sending an answer"):
            await asyncio.get_running_loop().sock_sendall(connection, head.encode() + body)
    except (OSError, DeadlineExceededError) as error:
        # The session did not wait for it.
        log.debug("session start's answer not sent", reason=str(error))


class _RefusedError(Exception):
    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


async def _request(connection: socket.socket) -> SessionStartRequest:
    """Read one request. Raises _RefusedError, OSError."""
    received = b""
    while (end := received.find(b"\r\n\r\n")) < 0:
        if len(received) > MOST_HEAD:
            raise _RefusedError(431)
        received += await _some(connection)
    length, body = _length(received[:end]), received[end + 4 :]
    while len(body) < length:
        body += await _some(connection)
    try:
        return decode_request(body[:length], SessionStartRequest)
    except WireError as error:
        raise _RefusedError(400) from error


async def _some(connection: socket.socket) -> bytes:
    part = await asyncio.get_running_loop().sock_recv(connection, _READ)
    if not part:
        raise ConnectionResetError("the client hung up")
    return part


def _length(head: bytes) -> int:
    """Return how long the body is. Raises _RefusedError for a request that is not one for a session start."""
    first, *lines = head.decode("latin-1").split("\r\n")
    words = first.split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        raise _RefusedError(400)
    if words[1].partition("?")[0] != "/session-start":
        raise _RefusedError(404)
    if words[0] != "POST":
        raise _RefusedError(405)
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    length = headers.get("content-length", "")
    if "transfer-encoding" in headers or not length:
        raise _RefusedError(411)
    if not (length.isascii() and length.isdecimal()):
        raise _RefusedError(400)
    if len(length) > 8 or int(length) > MOST_BODY:
        raise _RefusedError(413)
    return int(length)
