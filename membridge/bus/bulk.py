"""Bodies that one NATS message does not hold: a request's is fetched by who answers, a reply's is sent in parts.

A request goes to one member of a group that shares them, so its parts cannot follow it: it names an inbox of the caller
instead, and the member that got it asks there for one part after another. Only requests and replies travel so; what a
stream or a bucket keeps is never larger than a message.
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

#: Where the body of a request is, and its bytes.
AT, SIZE = "Membridge-Body-At", "Membridge-Body-Size"
#: Bytes of a message that its headers may need.
HEADERS = 8 << 10
#: Bytes of one part, where the server takes that much.
PART = 512 << 10
#: Largest body of a request.
MOST_REQUEST = 8 << 20
#: Seconds that one part may take.
PART_SECONDS = 5.0


def room(bus: Bus) -> int:
    """Return the bytes of a body that one message holds."""
    return max(1, bus.max_payload - HEADERS)


@asynccontextmanager
async def offered(bus: Bus, body: bytes) -> AsyncGenerator[Mapping[str, str]]:
    """Hand out `body` in parts during the context; yield the headers that a request for it has."""
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
    """Return the body of a request, wherever it is.

    Errors: TooLargeError, InvalidRequestError for an address that is no inbox, those of `Bus.request`.
    """
    address = message.headers.get(AT)
    if address is None:
        return message.body
    stated = message.headers.get(SIZE, "")
    size = int(stated) if stated.isdigit() and len(stated) < 16 else 0
    check(size)
    if not address.startswith(INBOX) or any(letter in address for letter in " *>"):
        raise InvalidRequestError(f"{AT} is not an inbox")
    body = bytearray()
    while len(body) < size:
        part = await bus.request(address, b"%d" % len(body), deadline=deadline.sooner(PART_SECONDS))
        if not part.body or len(body) + len(part.body) > size:
            raise InvalidRequestError("the request is not as large as it says")
        body += part.body
    return bytes(body)


def check(size: int) -> None:
    """Raise TooLargeError for a request of more bytes than are taken."""
    if size > MOST_REQUEST:
        raise TooLargeError(f"the request has {size:,} bytes, at most {MOST_REQUEST:,} are taken")


def in_parts(bus: Bus, body: bytes) -> list[bytes]:
    """Return a reply's body in the parts that messages hold."""
    size = room(bus)
    if len(body) <= size:
        return [body]
    return [body[start : start + size] for start in range(0, len(body), size)]
