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
        self._attaching = asyncio.Lock()
        self._on: Client | None = None
        self._attached: ClientSubscription | None = None
        self._over = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Message:
        while (message := await self.next()) is None:
            pass
        return message

    async def next(self) -> Message | None:
        """Return the next message, or None when the connection has changed since the last call."""
        return await self._arrived.get()

    async def news_within(self, seconds: float) -> bool:
        """Wait for messages or a new connection and drop what is here; return whether there was any in time."""
        try:
            async with asyncio.timeout(seconds):
                await self.next()
        except TimeoutError:
            return False
        while self.next_nowait() is not None:
            pass
        return True

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
        """Subscribe on `client`, unless that is done. One that is down is no failure: the bus attaches when it is up.

        A rebuilt connection attaches every subscription while others are being made: each may ask for the same. What
        a client is told while it is down it sends later, even after the subscription was given up again.
        """
        async with self._attaching:
            if self._over or self._on is client or not client.is_connected:
                return
            try:
                # The type of a parameter that is not used here is not complete in nats-py.
                self._attached = await client.subscribe(self.subject, queue=self.queue, cb=self._arrive)  # pyright: ignore[reportUnknownMemberType]
            except Error:
                self._on, self._attached = None, None
            else:
                self._on = client

    async def detach(self) -> None:
        """Unsubscribe for good; what is in the queue can still be read."""
        self._over = True
        async with self._attaching:
            attached, self._on, self._attached = self._attached, None, None
            if attached is None:
                return
            try:
                await attached.unsubscribe()
            except Error:
                # The connection went away, and the subscription with it.
                return

    async def _arrive(self, message: Msg) -> None:
        if self._arrived.full():
            self.dropped += 1
            return
        self._arrived.put_nowait(plain(message.subject, message.reply, message.headers, message.data))
