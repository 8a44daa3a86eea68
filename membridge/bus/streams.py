"""The declared streams, a work queue's consumer, and the last message of each subject of a history."""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass

import msgspec

from membridge.aio.backoff import Backoff
from membridge.aio.deadline import Deadline
from membridge.bus import errors, jetstream
from membridge.bus.connection import Bus
from membridge.bus.jetstream import StreamConfig, nanoseconds
from membridge.bus.message import Message
from membridge.errors import ForbiddenError, MembridgeError
from membridge.system.logging import get_logger
from membridge.system.problem import Problem
from schemas import streams, subjects
from schemas.identity import ProjectId
from schemas.streams import Retention, Stream

log = get_logger("membridge.bus")

#: Messages fetched at once, and seconds until an unacknowledged one is delivered again.
BATCH, ACK_WAIT = 32, 60.0
#: Seconds that the server may take to confirm an acknowledgement.
ACK_ANSWER = 5.0


async def ensure_streams(
    bus: Bus, wanted: Sequence[Stream] = streams.ALL, *, replicas: int, deadline: Deadline
) -> None:
    """Create or update the declared streams."""
    for stream in wanted:
        await _ensure(bus, stream, replicas=replicas, deadline=deadline)


async def _ensure(bus: Bus, stream: Stream, *, replicas: int, deadline: Deadline) -> None:
    config = StreamConfig(
        name=stream.name,
        subjects=list(stream.subjects),
        retention=stream.retention.value,
        discard="new" if stream.retention is Retention.WORK_QUEUE else "old",
        num_replicas=replicas,
        max_bytes=stream.max_bytes,
        max_age=nanoseconds(stream.max_age),
        max_msgs_per_subject=stream.per_subject or -1,
        no_ack=not stream.acked,
        persist_mode="async" if not stream.acked and replicas == 1 else msgspec.UNSET,
    )
    await jetstream.ensure_stream(bus, config, deadline=deadline)


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message of a work queue; it is delivered again until it is acknowledged or terminated."""

    message: Message
    attempts: int
    bus: Bus
    ack_subject: str

    async def ack(self) -> None:
        """Acknowledge it. Returns when the server has: then its data can be deleted, as no delivery follows.

        Errors: DeadlineExceededError without an answer; then it may be delivered again.
        """
        await self.bus.request(self.ack_subject, b"+ACK", deadline=Deadline.after(ACK_ANSWER))

    async def nak(self, delay: float = 0.0) -> None:
        """Have it delivered again after `delay` seconds."""
        await self.bus.publish(self.ack_subject, b"-NAK " + msgspec.json.encode({"delay": nanoseconds(delay)}))

    async def term(self, reason: str = "") -> None:
        """Have it never delivered again."""
        await self.bus.publish(self.ack_subject, f"+TERM {reason}".encode())

    async def in_progress(self) -> None:
        """Report that it is still being worked on: the wait for its acknowledgement starts anew."""
        await self.bus.publish(self.ack_subject, b"+WPI")


class WorkQueue:
    """A durable pull consumer of one filter of a work queue stream."""

    def __init__(self, bus: Bus, stream: Stream, durable: str, filter_subject: str) -> None:
        self._bus, self._stream, self._durable, self._filter = bus, stream, durable, filter_subject
        self._backoff, self._problem = Backoff(0.2, 25.0), Problem(log, "work queue not opened")
        #: Whether to compare an empty answer with what the stream holds.
        self._looks = True

    async def ensure(self, *, deadline: Deadline) -> None:
        """Create the consumer if it is missing, or anew if it passes over messages of the stream."""
        await self._drop_lost(deadline=deadline)
        config: dict[str, object] = {
            "name": self._durable,
            "durable_name": self._durable,
            "ack_policy": "explicit",
            "ack_wait": nanoseconds(ACK_WAIT),
            "max_ack_pending": 8 * BATCH,
            "deliver_policy": "all",
        }
        # Looked for first: a node with a key of its own may use the consumer, not create it.
        if await jetstream.has_consumer(self._bus, self._stream.name, self._durable, deadline=deadline):
            return
        try:
            await self._create(config, deadline=deadline)
        except errors.ConsumerDamagedError as error:
            # The state of a work queue's consumer can be lost: finished messages are gone from the stream, and the
            # rest is delivered again. A consumer in the server's memory needs no file.
            await self._create({**config, "mem_storage": True}, deadline=deadline)
            log.warning("consumer kept in the server's memory", name=self._durable, reason=error.message)

    async def _drop_lost(self, *, deadline: Deadline) -> bool:
        """Delete the consumer if its position is beyond messages that it never delivered; return whether it was.

        A damaged file can cause that. A new consumer delivers them all, some a second time.
        """
        stream, name = self._stream.name, self._durable
        try:
            if not self._looks or not await jetstream.passes_over(
                self._bus, stream, name, filter_subject=self._filter, deadline=deadline
            ):
                return False
            await jetstream.delete_consumer(self._bus, stream, name, deadline=deadline)
        except ForbiddenError as error:
            # A node with a key of its own creates no consumers; the server's machine checks them.
            self._looks = False
            log.warning("work queue not opened", name=name, reason=error.message, remedy=error.remedy)
            return False
        log.warning("consumer made anew", name=name, reason="its place was beyond messages that it had not delivered")
        return True

    async def _create(self, config: dict[str, object], *, deadline: Deadline) -> None:
        await jetstream.create_consumer(
            self._bus, self._stream.name, config, filter_subject=self._filter, deadline=deadline
        )

    async def waiting(self, *, deadline: Deadline) -> int:
        """Return how many messages are not delivered yet, or delivered and not acknowledged. Errors: the bus's."""
        return await jetstream.unacknowledged(self._bus, self._stream.name, self._durable, deadline=deadline)

    async def fetch(self, *, wait: float) -> list[Delivery]:
        """Return waiting messages after at most `wait` seconds; an empty list if none came or NATS is away."""
        generation = self._bus.generation
        try:
            found = await self._fetch(wait)
            if not found and await self._drop_lost(deadline=Deadline.after(ACK_ANSWER)):
                await self.ensure(deadline=Deadline.after(ACK_ANSWER))
        except MembridgeError:
            await self._recover(generation)
            return []
        self._backoff.reset()
        self._problem.over()
        return found

    async def _fetch(self, wait: float) -> list[Delivery]:
        # It waits for one message, then takes what else is there: an open request for more would send messages to an
        # inbox that is not read any more.
        first = await self._ask(1, {"expires": nanoseconds(wait)}, wait + 1.0)
        if not first:
            return []
        try:
            return first + await self._ask(BATCH - 1, {"no_wait": True}, 5.0)
        except MembridgeError:
            # The connection broke in between; the first message was delivered all the same.
            return first

    async def _ask(self, batch: int, terms: dict[str, object], wait: float) -> list[Delivery]:
        inbox, found = self._bus.new_inbox(), list[Delivery]()
        async with self._bus.subscribe(inbox) as replies:
            subject = f"{self._bus.options.api}.CONSUMER.MSG.NEXT.{self._stream.name}.{self._durable}"
            await self._bus.publish(subject, msgspec.json.encode({"batch": batch, **terms}), reply=inbox)
            try:
                async with asyncio.timeout(wait):
                    while len(found) < batch:
                        message = await replies.next()
                        if message is None:
                            break
                        if not message.reply:
                            if errors.status_of(message.headers) == 503:
                                raise errors.ConsumerMissingError(f"consumer {self._durable} is gone")
                            break
                        found.append(self._delivery(message))
            except TimeoutError:
                pass
        return found

    def _delivery(self, message: Message) -> Delivery:
        # $JS.ACK.<stream>.<consumer>.<delivered>... or with domain and account in front (ADR-15).
        parts = message.reply.split(".")
        attempts = parts[4] if len(parts) < 11 else parts[6]
        return Delivery(message, int(attempts) if attempts.isdigit() else 1, self._bus, message.reply)

    async def _recover(self, generation: int) -> None:
        pause = self._backoff.failed()
        try:
            # A new connection ends the pause.
            async with asyncio.timeout(pause):
                await self._bus.wait_generation(generation)
        except TimeoutError:
            pass
        try:
            await _ensure(self._bus, self._stream, replicas=self._bus.options.replicas, deadline=Deadline.after(5.0))
            await self.ensure(deadline=Deadline.after(5.0))
        except MembridgeError as error:
            # That the connection is down was logged already.
            if self._bus.connected:
                self._problem.failed(error, name=self._durable)


async def life_of(bus: Bus, stream: Stream, *, deadline: Deadline) -> str:
    """Return what distinguishes this stream from one that was made anew after the store had lost it."""
    return await jetstream.stream_birth(bus, stream.name, deadline=deadline)


async def open_queue(bus: Bus, stream: Stream, durable: str, filter_subject: str, *, deadline: Deadline) -> WorkQueue:
    """Open a work queue; its consumer is made anew whenever it is gone."""
    queue = WorkQueue(bus, stream, durable, filter_subject)
    await queue.ensure(deadline=deadline)
    return queue


async def open_proposals(bus: Bus, project: ProjectId, *, deadline: Deadline) -> WorkQueue:
    """Open the work queue of a project's proposals, which the primary reads."""
    return await open_queue(
        bus,
        streams.PROPOSALS,
        durable=f"proposals-{project}",
        filter_subject=subjects.PROPOSAL.format(project=project, node="*"),
        deadline=deadline,
    )


@dataclass(frozen=True, slots=True)
class Span:
    """A stream's life, which differs if it was made anew, its first kept sequence, and its last one."""

    life: str
    first_seq: int
    last_seq: int


async def span(bus: Bus, stream: Stream, *, deadline: Deadline) -> Span:
    """Return which sequences of a stream can be read, and in which of its lives."""
    birth, state = await jetstream.stream_birth_and_state(bus, stream.name, deadline=deadline)
    return Span(birth, state.first_seq, state.last_seq)


@dataclass(frozen=True, slots=True)
class Page:
    """Bodies of a stream by sequence, oldest first, and the start of the next page, None after the last."""

    entries: list[tuple[int, bytes]]
    next_seq: int | None


async def history(
    bus: Bus, stream: Stream, filter_subject: str, *, start: int = 1, most_bytes: int, deadline: Deadline
) -> Page:
    """Return what a stream keeps under the filter from sequence `start` on, about `most_bytes` at most."""
    entries: list[tuple[int, bytes]] = []
    size = 0
    async with aclosing(
        jetstream.read_from(bus, stream.name, filter_subject, start=start, deadline=deadline)
    ) as messages:
        async for message in messages:
            size += len(message.body)
            if entries and size > most_bytes:
                return Page(entries, jetstream.sequence_of(message))
            entries.append((jetstream.sequence_of(message), message.body))
    return Page(entries, None)


async def last_per_subject(
    bus: Bus, stream: Stream, filter_subject: str, *, limit: int, deadline: Deadline
) -> list[Message]:
    """Return the last message of each subject under the filter, newest first, at most `limit`."""
    found: dict[str, Message] = {}
    async for message in jetstream.read_from(bus, stream.name, filter_subject, start=1, deadline=deadline):
        subject = jetstream.subject_of(message)
        found.pop(subject, None)
        found[subject] = message
        if len(found) > limit:
            # The oldest cannot be among the newest any more; so memory is bounded by `limit`.
            del found[next(iter(found))]
    return list(found.values())[::-1]
