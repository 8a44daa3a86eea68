"""The one inbox of a connection: who waits for which reply.

Not nats-py's own: that one leaks an entry for each request made while the connection is down, and dies with a client
that the server closed, while this inbox moves on to the next one. Its tokens cannot be guessed.
"""

import asyncio
import secrets
from dataclasses import replace

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error

from membridge.bus.message import PART, Message, plain
from membridge.errors import BusUnavailableError

#: Bytes that the parts of one reply may have together.
MOST = 32 << 20


class Inbox:
    """Futures of replies, by the last token of the subject they come on."""

    def __init__(self, prefix: str) -> None:
        self._subject = f"{prefix}.{secrets.token_hex(12)}"
        self._waiting: dict[str, asyncio.Future[Message]] = {}
        #: What came so far of replies that are sent in parts.
        self._parts: dict[str, list[Message]] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    async def attach(self, client: Client) -> None:
        """Receive on `client` from now on."""
        try:
            await client.subscribe(f"{self._subject}.*", cb=self._arrive)  # pyright: ignore[reportUnknownMemberType] - an unused future is untyped
        except Error:
            # Closed again already: the next client attaches.
            return

    def expect(self) -> tuple[str, "asyncio.Future[Message]"]:
        """Return a new reply subject and the future of what comes on it; a cancelled future is forgotten."""
        token = secrets.token_hex(12)
        future: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._waiting[token] = future
        future.add_done_callback(lambda _: self._forget(token))
        return f"{self._subject}.{token}", future

    def _forget(self, token: str) -> None:
        self._waiting.pop(token, None)
        self._parts.pop(token, None)

    async def _arrive(self, message: Msg) -> None:
        token = message.subject.rpartition(".")[2]
        future = self._waiting.get(token)
        if future is None or future.done():
            return
        arrived = plain(message.subject, message.reply, message.headers, message.data)
        if PART not in arrived.headers:
            future.set_result(arrived)
            return
        parts = self._parts.setdefault(token, [])
        parts.append(arrived)
        number, _, count = arrived.headers[PART].partition("/")
        if number != str(len(parts)) or _size(parts) > MOST:
            future.set_exception(
                BusUnavailableError(f"a part of the reply to {arrived.subject} is missing", remedy="try again")
            )
        elif number == count:
            future.set_result(replace(parts[0], body=b"".join(part.body for part in parts)))


def _size(parts: list[Message]) -> int:
    return sum(len(part.body) for part in parts)
