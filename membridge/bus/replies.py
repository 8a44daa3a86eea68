"""The one inbox of a connection: who waits for which reply.

Not nats-py's own: that one leaks an entry for each request made while the connection is down, and dies with a client
that the server closed, while this inbox moves on to the next one. Its tokens cannot be guessed.
"""

import asyncio
import secrets

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error

from membridge.bus.message import Message, plain


class Replies:
    """Futures of replies, by the last token of the subject they come on."""

    def __init__(self, prefix: str) -> None:
        self._subject = f"{prefix}.{secrets.token_hex(12)}"
        self._waiting: dict[str, asyncio.Future[Message]] = {}

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
        future.add_done_callback(lambda _: self._waiting.pop(token, None))
        return f"{self._subject}.{token}", future

    async def _arrive(self, message: Msg) -> None:
        future = self._waiting.get(message.subject.rpartition(".")[2])
        if future is not None and not future.done():
            future.set_result(plain(message.subject, message.reply, message.headers, message.data))
