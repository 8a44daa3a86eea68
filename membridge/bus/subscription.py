"""A subscription that outlives the connection it was made on.

Its queue has a bound: what comes when it is full is dropped and counted, as core NATS would drop it. Whoever cannot
afford that reads a stream instead.
"""

import asyncio
from typing import TYPE_CHECKING, Self

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error

from membridge.bus.message import Message, plain

if TYPE_CHECKING:
    from nats.aio.subscription import Subscription as ClientSubscription


class Subscription:
    """Messages of one subject, in order of arrival; iterate over it inside `Bus.subscribe`."""

    def __init__(self, subject: str, *, queue: str, bound: int) -> None:
        self.subject = subject
        self.queue = queue
        #: Messages that found the queue full.
        self.dropped = 0
        self._arrived: asyncio.Queue[Message | None] = asyncio.Queue(bound)
        self._client: ClientSubscription | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Message:
        while (message := await self.next()) is None:
            pass
        return message

    async def next(self) -> Message | None:
        """Return the next message, or None when the connection has changed since the last call."""
        return await self._arrived.get()

    def next_nowait(self) -> Message | None:
        """Return a message that is here already, None when there is none."""
        while not self._arrived.empty():
            message = self._arrived.get_nowait()
            if message is not None:
                return message
        return None

    def wake(self) -> None:
        """Let a waiting `next` return None; a full queue needs no waking."""
        if not self._arrived.full():
            self._arrived.put_nowait(None)

    async def attach(self, client: Client) -> None:
        """Subscribe on `client`. One that is closed is no failure: its successor attaches again."""
        try:
            # The type of a parameter that is not used here is not complete in nats-py.
            self._client = await client.subscribe(self.subject, queue=self.queue, cb=self._arrive)  # pyright: ignore[reportUnknownMemberType]
        except Error:
            self._client = None

    async def detach(self) -> None:
        """Unsubscribe; what is in the queue can still be read."""
        client, self._client = self._client, None
        if client is not None:
            try:
                await client.unsubscribe()
            except Error:
                # The connection went away, and the subscription with it.
                return

    async def _arrive(self, message: Msg) -> None:
        if self._arrived.full():
            self.dropped += 1
            return
        self._arrived.put_nowait(plain(message.subject, message.reply, message.headers, message.data))
