"""The connection to NATS: opened once, then kept for ever.

`connect` is the resource, `Bus` what the rest of the system uses. While the connection is down everything fails fast
and nothing is kept for later; when it is back, `generation` has grown and every subscription is in place again.
"""

import asyncio
import secrets
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager

import msgspec
from nats.aio.client import Client
from nats.errors import Error

from membridge.aio.backoff import Backoff
from membridge.aio.deadline import Deadline
from membridge.aio.tasks import background
from membridge.bus import errors
from membridge.bus.errors import ApiError
from membridge.bus.inbox import Inbox
from membridge.bus.message import Message, size_of
from membridge.bus.nats_client import Callbacks, NatsClient
from membridge.bus.options import BusOptions
from membridge.bus.subscription import Subscription
from membridge.errors import (
    BusUnavailableError,
    CredentialsError,
    DeadlineExceededError,
    ForbiddenError,
    MembridgeError,
    NoResponderError,
    TooLargeError,
)
from membridge.system.logging import get_logger

#: Seconds without a single try after which a connection that is down is taken for stuck.
STUCK = 30.0
#: Refusals in a row after which the credentials count as refused: a server that starts may not know them yet.
REFUSALS = 4
#: Seconds until a subscription must have reached the server; over it the connection is half open.
SETTLE = 10.0

#: Seconds that JetStream may take to answer. An answer that a broken connection swallowed never comes: who waits for it
#: must not wait for as long as the whole operation may take.
ANSWER = 10.0

log = get_logger("membridge.bus")


class PubAck(msgspec.Struct, frozen=True):
    """JetStream's answer to a publish."""

    seq: int = 0
    duplicate: bool = False
    error: ApiError | None = None


class Bus:
    """NATS, as this process sees it. Made by `connect` only."""

    def __init__(self, options: BusOptions) -> None:
        self.options = options
        #: Grows by one with each connection; what was set up on the server under an older one may be gone.
        self.generation = 0
        self._changed = asyncio.Event()
        self._lost, self._refused = asyncio.Event(), asyncio.Event()
        self._closing = False
        self._nats = self._new_client()
        self._inbox = Inbox(options.inbox_prefix)
        self._subscriptions: set[Subscription] = set()
        #: Who waits for a reply, by the subject of the request in lower case.
        self._asked: dict[str, set[asyncio.Future[Message]]] = {}
        self._group: asyncio.TaskGroup | None = None

    @property
    def connected(self) -> bool:
        """Whether NATS hears us, as far as we know."""
        return self._nats.connected

    @property
    def server_version(self) -> str:
        """The version of the server that we are or were last connected to."""
        return self._nats.version_text

    @property
    def max_payload(self) -> int:
        """The bytes that the server allows in one message, as it said last."""
        return self._nats.client.max_payload

    async def wait_generation(self, after: int) -> int:
        """Wait until the connection is a newer one than `after`; return its generation."""
        while self.generation <= after:
            await self._changed.wait()
        return self.generation

    async def until_refused(self) -> None:
        """Wait until the server has refused the credentials of a lost connection several times in a row."""
        await self._refused.wait()

    async def publish(
        self, subject: str, body: bytes = b"", headers: Mapping[str, str] | None = None, *, reply: str = ""
    ) -> None:
        """Send a message to whoever listens; nobody need.

        Errors: BusUnavailableError at once while the connection is down, TooLargeError, InvalidRequestError.
        """
        what = f"publishing to {subject}"
        client = self._ready(what)
        self._check_size(what, body, headers)
        try:
            await client.publish(subject, body, reply=reply, headers=dict(headers) if headers else None)
        except (Error, OSError, asyncio.InvalidStateError) as error:
            raise errors.of_client(error, what) from error

    async def request(
        self, subject: str, body: bytes = b"", *, deadline: Deadline, headers: Mapping[str, str] | None = None
    ) -> Message:
        """Send a message and return the first reply.

        A request that was sent before the connection broke keeps waiting: the reply finds the new connection. Errors:
        NoResponderError, DeadlineExceededError, ForbiddenError for a subject that the server does not let this user
        publish to, and those of `publish`.
        """
        what = f"request to {subject}"
        reply, future = self._inbox.expect()
        asked = self._asked.setdefault(subject.lower(), set())
        asked.add(future)
        try:
            async with deadline.scope(what):
                await self.publish(subject, body, headers, reply=reply)
                message = await future
        finally:
            future.cancel()
            asked.discard(future)
            if not asked and self._asked.get(subject.lower()) is asked:
                del self._asked[subject.lower()]
        if not message.body and errors.status_of(message.headers) == 503:
            raise NoResponderError(f"no process answers {subject}", remedy="check that the service it belongs to runs")
        return message

    async def stream_publish(
        self,
        subject: str,
        body: bytes,
        *,
        message_id: str,
        deadline: Deadline,
        headers: Mapping[str, str] | None = None,
    ) -> int:
        """Store a message in the stream that keeps `subject`; return its sequence there.

        The same `message_id` is stored once, so a publish of unknown outcome may be repeated. It must not be
        guessable: de-duplication is stream-wide. Errors: those of `request`; BusUnavailableError when no stream keeps
        the subject, RevisionMovedError when a header expected another sequence.
        """
        conditions = {**(headers or {}), "Nats-Msg-Id": message_id}
        return await self.store(subject, body, headers=conditions, deadline=deadline)

    async def store(self, subject: str, body: bytes, *, headers: Mapping[str, str], deadline: Deadline) -> int:
        """Store a message under whatever conditions `headers` state; return its sequence."""
        what = f"storing to {subject}"
        try:
            reply = await self.request(subject, body, deadline=deadline.sooner(ANSWER), headers=headers)
        except NoResponderError as error:
            raise errors.StreamMissingError(f"{what}: no stream keeps it") from error
        try:
            ack = msgspec.json.decode(reply.body, type=PubAck)
        except msgspec.DecodeError as error:
            raise BusUnavailableError(f"{what}: the answer is not valid JSON", remedy=errors.UPGRADE) from error
        if ack.error is not None:
            errors.raise_api(ack.error, what)
        return ack.seq

    @asynccontextmanager
    async def subscribe(
        self, subject: str, *, queue: str = "", bound: int = 1024, settled: bool = True
    ) -> AsyncGenerator[Subscription]:
        """Yield the messages of `subject`; with `queue`, those that fall to this member of the group.

        The server knows of it when the body starts, unless `settled` is False. It survives reconnects; what is sent
        meanwhile is missed.
        """
        subscription = Subscription(subject, queue=queue, bound=bound)
        self._subscriptions.add(subscription)
        try:
            await subscription.attach(self._nats.client)
            if settled:
                await self.settle()
            yield subscription
        finally:
            self._subscriptions.discard(subscription)
            await subscription.detach()

    def new_inbox(self) -> str:
        """Return a subject that only we know."""
        return f"{self.options.inbox_prefix}.{secrets.token_hex(12)}"

    async def settle(self) -> None:
        """Wait until the server has seen what was sent so far; return at once when the connection is down or breaks."""
        if self._group is None or self._closing or not self.connected:
            return
        nats = self._nats
        # In a task of its own: a flush that is cancelled breaks nats-py's reader when the late answer comes.
        flush = self._group.create_task(self._flush(nats, nats.broken), name="bus flush")
        await asyncio.wait({flush, nats.broken}, return_when=asyncio.FIRST_COMPLETED)

    async def open(self, *, deadline: Deadline) -> None:
        """Connect for the first time; `connect` calls it."""
        try:
            await self._start(self._nats, deadline=deadline.sooner(5.0))
        except BaseException:
            await self._nats.close()
            raise

    async def keep(self, group: asyncio.TaskGroup) -> None:
        """Make a new client whenever the old one is closed for good or stuck; runs until cancelled."""
        self._group = group
        while True:
            await self._until_lost()
            self._lost.clear()
            await self._nats.close()
            await self._rebuild()

    async def close(self) -> None:
        """Say goodbye within five seconds."""
        self._closing = True
        await self._nats.close()

    def _new_client(self) -> NatsClient:
        return NatsClient(
            self.options, Callbacks(up=self._on_up, down=self._on_down, closed=self._lost.set, refused=self._on_refused)
        )

    async def _start(self, nats: NatsClient, *, deadline: Deadline) -> None:
        await nats.open(deadline=deadline)
        await nats.check(deadline=deadline)
        self._nats = nats
        await self._inbox.attach(nats.client)
        if self.options.jetstream:
            await self._check_account(deadline=deadline)
        await self._on_up()

    async def _check_account(self, *, deadline: Deadline) -> None:
        where = f"NATS at {self.options.where()}"
        try:
            reply = await self.request(f"{self.options.api}.INFO", deadline=deadline)
        except NoResponderError as error:
            raise errors.no_jetstream(where) from error
        except DeadlineExceededError as error:
            raise BusUnavailableError(f"{where}: JetStream does not answer", remedy=errors.STUCK) from error
        info = msgspec.json.decode(reply.body, type=PubAck)
        if info.error is not None:
            errors.raise_api(info.error, where)

    async def _until_lost(self) -> None:
        while not self._lost.is_set():
            tries = self._nats.tries
            try:
                async with asyncio.timeout(STUCK):
                    await self._lost.wait()
            except TimeoutError:
                if not self.connected and self._nats.tries == tries:
                    log.warning("bus connection is stuck, making a new one")
                    return

    async def _rebuild(self) -> None:
        refusals, backoff = 0, Backoff(self.options.pace.retry_first, self.options.pace.retry_most)
        while True:
            nats = self._new_client()
            try:
                await self._start(nats, deadline=Deadline.after(5.0))
            except MembridgeError as error:
                log.warning("bus is down", reason=error.message)
                await nats.close()
                refusals = refusals + 1 if isinstance(error, CredentialsError) else 0
                if refusals >= REFUSALS:
                    self._refused.set()
            else:
                self._refused.clear()
                return
            await asyncio.sleep(backoff.failed())

    async def _flush(self, nats: NatsClient, broken: "asyncio.Future[None]") -> None:
        try:
            await nats.client.flush(timeout=int(SETTLE))
        except (Error, OSError, TimeoutError):
            # No answer: half open. The late answer would break the reader, so the connection is made anew. One that
            # broke meanwhile took its answer with it, and its successor is sound.
            if not broken.done():
                await nats.client.force_reconnect()

    def _ready(self, what: str) -> Client:
        if not self._nats.connected:
            raise BusUnavailableError(f"{what}: the connection to NATS is down")
        return self._nats.client

    def _check_size(self, what: str, body: bytes, headers: Mapping[str, str] | None) -> None:
        # nats-py leaves the headers out of its own check, and the server closes the connection of who goes over.
        size, limit = len(body) + size_of(headers), self.max_payload
        if size > limit:
            raise TooLargeError(f"{what}: {size} bytes, the server allows {limit}", remedy="send less at once")

    async def _on_up(self) -> None:
        # Before anything hears of the new connection: by then every subscription is in place.
        for subscription in tuple(self._subscriptions):
            await subscription.attach(self._nats.client)
        self.generation += 1
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
        log.info("bus connected", generation=self.generation, server_version=self.server_version)
        for subscription in self._subscriptions:
            subscription.wake()

    def _on_refused(self, subject: str) -> None:
        # The server does not say which message it was; whoever may not send one may send none.
        for future in tuple(self._asked.get(subject, ())):
            if not future.done():
                future.set_exception(
                    ForbiddenError(
                        f"this user may not send requests to {subject}",
                        remedy="run the command on that machine, or as an operator where `membridge up --listen` runs",
                    )
                )

    def _on_down(self) -> None:
        log.warning("bus connection lost", reason=str(self._nats.last_error or "closed by the server"))


@asynccontextmanager
async def connect(options: BusOptions, *, deadline: Deadline) -> AsyncGenerator[Bus]:
    """Connect to NATS and keep the connection during the body.

    A first connection that fails says why within five seconds: BusUnavailableError (nobody there, no answer, too old,
    no JetStream) or CredentialsError; SettingsError for an address that is none. Afterwards losing the connection
    is no error of this context: calls fail with BusUnavailableError until it is back.
    """
    options.check()
    bus = Bus(options)
    await bus.open(deadline=deadline)
    async with background() as group:
        keeper = group.create_task(bus.keep(group), name="bus keeper")
        await asyncio.sleep(0)
        try:
            yield bus
        finally:
            keeper.cancel()
            await asyncio.wait({keeper})
            await bus.close()
