"""Endpoints after the NATS micro conventions (ADR-32), run concurrently with a bound.

Every error leaves as two headers and an `ErrorReply`; an unexpected one as `internal` and its request id, nothing else.
What comes over the bound is told to come later. A stop takes no new requests, lets running ones finish for a moment
and answers the rest; no request is left without a reply.
"""

import asyncio
import secrets
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec

from membridge.aio.deadline import Deadline
from membridge.aio.tasks import answerable, first_failure
from membridge.bus import bulk
from membridge.bus.caller import caller_of
from membridge.bus.connection import Bus
from membridge.bus.message import INBOX, PART, Message
from membridge.bus.subscription import Subscription
from membridge.errors import InvalidRequestError, MembridgeError, OverloadedError, UnavailableError
from membridge.system import clock
from membridge.system.logging import bound, get_logger
from schemas.subjects import Operation
from schemas.wire import Wire, WireError, decode_request, encode, shortened

log = get_logger("membridge.service")

#: Requests that one endpoint works on at once, and those that wait behind them.
AT_ONCE, WAITING = 16, 256
#: Requests in parts that one service fetches at once.
LARGE = 4
#: Messages that may arrive between two turns of the event loop; what is over the two bounds above is refused at once.
BURST = 4096
#: Seconds that running requests may take at a stop: three services nest in a node, and it stops within ten seconds.
GRACE = 3.0
#: Seconds in which those that are cut off must have said so.
CUT_OFF = 0.5
#: Characters of an error's message at most.
MESSAGE = 1_000
_TYPE = "io.nats.micro.v1."
_STOPPING = "this node is stopping"


@dataclass(frozen=True, slots=True)
class ServiceIdentity:
    """What `$SRV.INFO` says of a service."""

    name: str
    version: str
    description: str
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class Call:
    """The circumstances of one request."""

    request_id: str
    subject: str
    headers: Mapping[str, str]
    deadline: Deadline
    #: Who asked, for logs and the audit.
    by: str


Handler = Callable[[Any, Call], Awaitable[Wire]]
#: Takes a request without waiting and returns the future of its answer; None leaves the request to the handler.
Prompt = Callable[[Any, Call], "asyncio.Future[Any] | None"]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An operation, the subject it is answered on, what answers it, and how many requests that works on at once.

    `prompt` spares a request its task, where what it asks for waits in a queue with a bound and an end of its own.
    """

    operation: Operation[Wire, Wire]
    subject: str
    handler: Handler
    queue: str = ""
    at_once: int = AT_ONCE
    prompt: Prompt | None = None


@dataclass(slots=True)
class _Stats:
    requests: int = 0
    errors: int = 0
    nanoseconds: int = 0
    last_error: str = ""


class _Service:
    def __init__(self, bus: Bus, identity: ServiceIdentity, endpoints: Sequence[Endpoint], grace: float) -> None:
        self._bus, self._identity, self._endpoints, self._grace = bus, identity, endpoints, grace
        self._id = secrets.token_hex(11)
        self._started = clock.stamp().replace("+00:00", "Z")
        self._stats = [_Stats() for _ in endpoints]
        self._running: set[asyncio.Future[Any]] = set()
        #: Answers of prompt requests, to be published in the order in which they came.
        self._answers: deque[tuple[Message, bytes, dict[str, str] | None]] = deque()
        self._answered = asyncio.Event()
        #: Large requests are fetched a few at a time: together they take as much memory as that.
        self._large = asyncio.Semaphore(LARGE)

    async def listen(self, group: asyncio.TaskGroup, endpoint: Endpoint, stats: _Stats, heard: Subscription) -> None:
        free, mine = asyncio.Semaphore(endpoint.at_once), set[asyncio.Future[Any]]()
        async for message in heard:
            if not _is_request(message):
                continue
            if len(mine) >= endpoint.at_once + WAITING:
                await self._turn_away(stats, message, OverloadedError("too many requests at once"))
                continue
            task = self._prompted(endpoint, stats, message)
            if task is None:
                task = group.create_task(self._answer(endpoint, stats, message, free), name=endpoint.operation.name)
            for tasks in (mine, self._running):
                tasks.add(task)
                task.add_done_callback(tasks.discard)

    async def refuse_unread(self, stats: _Stats, heard: Subscription) -> None:
        """Answer what arrived and was never looked at."""
        while (message := heard.next_nowait()) is not None:
            await self._turn_away(stats, message, UnavailableError(_STOPPING))

    async def drain(self) -> None:
        """Let running requests finish; cancel what is left, and let it say so."""
        if not self._running:
            return
        _, late = await asyncio.wait(self._running, timeout=self._grace)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late, timeout=CUT_OFF)

    def _prompted(self, endpoint: Endpoint, stats: _Stats, message: Message) -> "asyncio.Future[Any] | None":
        """Hand a request to the endpoint's `prompt`; None if it is for the handler."""
        if endpoint.prompt is None or bulk.AT in message.headers:
            return None
        began, request_id = time.perf_counter_ns(), _request_id(message)
        try:
            request = _decoded(endpoint, message.body)
            deadline = Deadline.after(endpoint.operation.deadline)
            call = Call(request_id, message.subject, message.headers, deadline, caller_of(message))
            answer = endpoint.prompt(request, call)
        except Exception as error:  # noqa: BLE001 - the caller is told, and the service goes on
            answer = asyncio.get_running_loop().create_future()
            answer.set_exception(error)
        if answer is None:
            return None
        stats.requests += 1

        def answered(answer: "asyncio.Future[Wire]") -> None:
            stats.nanoseconds += time.perf_counter_ns() - began
            error = UnavailableError(_STOPPING) if answer.cancelled() else answer.exception()
            if error is None:
                self._answers.append((message, encode(answer.result()), None))
            else:
                said = answerable(error, log, request_id=request_id, subject=message.subject)
                self._answers.append((message, *self._refused(stats, said, request_id)))
            self._answered.set()

        answer.add_done_callback(answered)
        return answer

    async def send_answers(self) -> None:
        """Publish the answers of prompt requests until cancelled."""
        while True:
            await self._answered.wait()
            self._answered.clear()
            await self._send_all()

    async def send_last_answers(self) -> None:
        """Publish those that are left."""
        # The callbacks of what was cancelled last run in the next turn of the loop.
        await asyncio.sleep(0)
        await self._send_all()

    async def _send_all(self) -> None:
        while self._answers:
            # It stays until it is sent: better twice than not at all when the sending is cut off.
            await self._reply(*self._answers[0])
            self._answers.popleft()

    async def _answer(self, endpoint: Endpoint, stats: _Stats, message: Message, free: asyncio.Semaphore) -> None:
        request_id, deadline = _request_id(message), Deadline.after(endpoint.operation.deadline)
        stats.requests += 1
        try:
            async with free:
                body, headers = encode(await self._timed(endpoint, stats, message, request_id, deadline)), None
        except MembridgeError as error:
            body, headers = self._refused(stats, error, request_id)
        except asyncio.CancelledError:
            body, headers = self._refused(stats, UnavailableError(_STOPPING), request_id)
            await self._reply(message, body, headers)
            raise
        except Exception as error:  # noqa: BLE001 - the caller is told, and the service goes on
            said = answerable(error, log, request_id=request_id, subject=message.subject)
            body, headers = self._refused(stats, said, request_id)
        await self._reply(message, body, headers)

    async def _timed(
        self, endpoint: Endpoint, stats: _Stats, message: Message, request_id: str, deadline: Deadline
    ) -> Wire:
        began = time.perf_counter_ns()
        try:
            return await self._handle(endpoint, message, request_id, deadline)
        finally:
            stats.nanoseconds += time.perf_counter_ns() - began

    async def _handle(self, endpoint: Endpoint, message: Message, request_id: str, deadline: Deadline) -> Wire:
        # Its time runs from its arrival: nobody waits any more for what stood in line too long.
        deadline.check(endpoint.operation.name)
        body = message.body
        if bulk.AT in message.headers:
            async with deadline.scope(endpoint.operation.name), self._large:
                body = await bulk.fetched(self._bus, message, deadline=deadline)
        request = _decoded(endpoint, body)
        call = Call(request_id, message.subject, message.headers, deadline, caller_of(message))
        with bound(request_id=request_id):
            async with deadline.scope(endpoint.operation.name):
                return await endpoint.handler(request, call)

    def _refused(self, stats: _Stats, error: MembridgeError, request_id: str) -> tuple[bytes, dict[str, str]]:
        stats.errors += 1
        stats.last_error = shortened(error.message, MESSAGE)
        # A message may quote what it refuses, and an answer must be sendable.
        reply = error.reply(request_id)
        reply = msgspec.structs.replace(
            reply, message=shortened(reply.message, MESSAGE), field=shortened(reply.field or "", MESSAGE) or None
        )
        headers = {
            "Nats-Service-Error": " ".join(reply.message.split()),
            "Nats-Service-Error-Code": str(error.mapping.nats),
        }
        return encode(reply), headers

    async def _turn_away(self, stats: _Stats, message: Message, error: MembridgeError) -> None:
        stats.requests += 1
        body, headers = self._refused(stats, error, _request_id(message))
        await self._reply(message, body, headers)

    async def _reply(self, message: Message, body: bytes, headers: dict[str, str] | None) -> None:
        if not message.reply:
            return
        parts = bulk.in_parts(self._bus, body)
        try:
            for index, part in enumerate(parts):
                numbered = {PART: f"{index + 1}/{len(parts)}"} if len(parts) > 1 else {}
                await self._bus.publish(message.reply, part, {**(headers or {}), **numbered} or None)
        except MembridgeError as error:
            log.warning("reply not sent", subject=message.subject, reason=error.message)

    async def discover(self, verb: str, heard: Subscription) -> None:
        async for message in heard:
            if not _is_request(message):
                continue
            body = msgspec.json.encode(self._described(verb))
            await self._reply(message, body, None)

    def _described(self, verb: str) -> dict[str, object]:
        identity = self._identity
        base: dict[str, object] = {
            "type": f"{_TYPE}{verb.lower()}_response",
            "name": identity.name,
            "id": self._id,
            "version": identity.version,
            "metadata": dict(identity.metadata),
        }
        if verb == "INFO":
            base["description"] = identity.description
            base["endpoints"] = [
                {
                    "name": endpoint.operation.name,
                    "subject": endpoint.subject,
                    "queue_group": endpoint.queue,
                    "metadata": {
                        "impact": endpoint.operation.impact.value,
                        "request": endpoint.operation.request.__name__,
                        "reply": endpoint.operation.reply.__name__,
                    },
                }
                for endpoint in self._endpoints
            ]
        if verb == "STATS":
            base["started"] = self._started
            base["endpoints"] = [
                {
                    "name": endpoint.operation.name,
                    "subject": endpoint.subject,
                    "queue_group": endpoint.queue,
                    "num_requests": stats.requests,
                    "num_errors": stats.errors,
                    "processing_time": stats.nanoseconds,
                    "average_processing_time": stats.nanoseconds // max(1, stats.requests),
                    "last_error": stats.last_error,
                }
                for endpoint, stats in zip(self._endpoints, self._stats, strict=True)
            ]
        return base

    def discovery_subjects(self) -> list[tuple[str, str]]:
        name = self._identity.name
        return [
            (verb, subject)
            for verb in ("PING", "INFO", "STATS")
            for subject in (f"$SRV.{verb}", f"$SRV.{verb}.{name}", f"$SRV.{verb}.{name}.{self._id}")
        ]

    def stats(self) -> list[_Stats]:
        return self._stats


@asynccontextmanager
async def serve(
    bus: Bus, identity: ServiceIdentity, endpoints: Sequence[Endpoint], *, grace: float = GRACE
) -> AsyncGenerator[None]:
    """Answer on `endpoints` during the body.

    When the body ends, in whatever way, requests that run have `grace` seconds left.
    """
    service = _Service(bus, identity, endpoints, grace)
    with first_failure():
        async with asyncio.TaskGroup() as group:
            listeners: list[asyncio.Task[None]] = []
            heard_by: list[tuple[_Stats, Subscription]] = []
            sending: asyncio.Task[None] | None = None
            try:
                async with AsyncExitStack() as stack:
                    for endpoint, stats in zip(endpoints, service.stats(), strict=True):
                        heard = await stack.enter_async_context(
                            bus.subscribe(endpoint.subject, queue=endpoint.queue, bound=BURST)
                        )
                        heard_by.append((stats, heard))
                        listeners.append(group.create_task(service.listen(group, endpoint, stats, heard)))
                    for verb, subject in service.discovery_subjects():
                        heard = await stack.enter_async_context(bus.subscribe(subject, bound=WAITING))
                        listeners.append(group.create_task(service.discover(verb, heard)))
                    sending = group.create_task(service.send_answers())
                    yield
            finally:
                for listener in listeners:
                    listener.cancel()
                for stats, heard in heard_by:
                    await service.refuse_unread(stats, heard)
                await service.drain()
                if sending is not None:
                    sending.cancel()
                await service.send_last_answers()


def _decoded(endpoint: Endpoint, body: bytes) -> Wire:
    bulk.check(len(body))
    try:
        return decode_request(body, endpoint.operation.request, limit=bulk.MOST_REQUEST)
    except WireError as error:
        raise InvalidRequestError(str(error), field=error.field) from error


def _is_request(message: Message) -> bool:
    """Whether somebody waits for an answer in an inbox.

    Permissions do not cover reply subjects: anybody can have the server send the answer to a request of theirs, or
    another service's, to this endpoint. Such a message has no inbox to answer to.
    """
    if message.reply.startswith(INBOX):
        return True
    log.debug("not a request", subject=message.subject, reason="its reply is no inbox")
    return False


def _request_id(message: Message) -> str:
    return message.headers.get("Membridge-Request-Id", "")[:64] or secrets.token_hex(8)
