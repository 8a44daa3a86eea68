"""Bodies too large for one NATS message: the service fetches a request's in parts, and sends a reply's in parts.

One member of a queue group gets the request, so further messages could reach another one. Instead the request names an
inbox of the caller, where the member that got it asks for one part after another. Only requests and replies need this:
what a stream or a bucket stores always fits into one message.
"""

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager

from membridge.aio.deadline import Deadline
from membridge.aio.tasks import background
from membridge.bus.connection import Bus
from membridge.bus.message import INBOX, Message
from membridge.bus.subscription import Subscription
from membridge.errors import InvalidRequestError, MembridgeError, TooLargeError
from membridge.system.logging import get_logger

log = get_logger("membridge.bus")

#: Headers: the inbox that hands out a request's body, and its size in bytes.
AT, SIZE = "Membridge-Body-At", "Membridge-Body-Size"
#: Bytes of a message that its headers may need.
HEADERS = 8 << 10
#: Bytes of one part, if the server allows that much.
PART = 512 << 10
#: Largest body of a request.
MOST_REQUEST = 8 << 20
#: Seconds that one part may take.
PART_SECONDS = 5.0


def room(bus: Bus) -> int:
    """Return how many bytes of a body fit into one message."""
    return max(1, bus.max_payload - HEADERS)


@asynccontextmanager
async def offered(bus: Bus, body: bytes) -> AsyncGenerator[Mapping[str, str]]:
    """Hand out `body` in parts during the context; yield the headers for its request."""
    inbox = bus.new_inbox()
    async with bus.subscribe(inbox) as asked, background() as group:
        group.create_task(_hand_out(bus, body, asked), name="large request")
        yield {AT: inbox, SIZE: str(len(body))}


async def _hand_out(bus: Bus, body: bytes, asked: Subscription) -> None:
    size = min(PART, room(bus))
    async for message in asked:
        if message.reply.startswith(INBOX) and message.body.isdigit():
            start = int(message.body[:16])
            try:
                await bus.publish(message.reply, body[start : start + size])
            except MembridgeError as error:
                log.debug("part of a request not sent", reason=error.message)


async def fetched(bus: Bus, message: Message, *, deadline: Deadline) -> bytes:
    """Return the body of a request, from the message or from the caller's inbox.

    Errors: TooLargeError, InvalidRequestError for an address that is not an inbox, those of `Bus.request`.
    """
    address = message.headers.get(AT)
    if address is None:
        return message.body
    stated = message.headers.get(SIZE, "")
    size = int(stated) if stated.isdigit() and len(stated) < 16 else 0
    check(size)
    if not address.startswith(INBOX) or any(letter in address for letter in " *>"):
        raise InvalidRequestError(f"the header {AT} does not name an inbox")
    body = bytearray()
    while len(body) < size:
        part = await bus.request(address, b"%d" % len(body), deadline=deadline.sooner(PART_SECONDS))
        if not part.body or len(body) + len(part.body) > size:
            raise InvalidRequestError(f"the request has another size than its header {SIZE} says")
        body += part.body
    return bytes(body)


def check(size: int) -> None:
    """Raise TooLargeError for a request over the limit."""
    if size > MOST_REQUEST:
        raise TooLargeError(f"the request has {size:,} bytes, at most {MOST_REQUEST:,} are allowed")


def in_parts(bus: Bus, body: bytes) -> list[bytes]:
    """Split a reply's body into parts that fit into messages."""
    size = room(bus)
    if len(body) <= size:
        return [body]
    return [body[start : start + size] for start in range(0, len(body), size)]
