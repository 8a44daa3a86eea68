"""The part of JetStream's API that we use: streams, direct reads, pull consumers.

It is JSON over `Bus.request`. nats-py's own context has defaults and exceptions that this package avoids. Only the bus
imports this module.
"""

from collections.abc import AsyncGenerator, Sequence
from typing import Any, TypeVar

import msgspec

from membridge.aio.deadline import Deadline
from membridge.bus import errors
from membridge.bus.connection import ANSWER, Bus
from membridge.bus.errors import ApiError
from membridge.bus.message import Message
from membridge.errors import BusUnavailableError, NoResponderError

#: Messages per round of a direct read, and subjects per round of one that asks for the last of each.
BATCH, LAST_OF = 256, 256
_SECOND = 1_000_000_000


class StreamConfig(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=False):
    """A stream's configuration in the API; durations in nanoseconds, 0 and -1 mean no bound."""

    name: str
    subjects: list[str]
    retention: str = "limits"
    storage: str = "file"
    discard: str = "new"
    num_replicas: int = 1
    max_bytes: int = -1
    max_age: int = 0
    max_msgs_per_subject: int = -1
    no_ack: bool = False
    duplicate_window: int = 120 * _SECOND
    allow_direct: bool = True
    allow_rollup_hdrs: bool = False
    deny_delete: bool = True
    allow_msg_ttl: bool = False
    subject_delete_marker_ttl: int = 0
    #: `async`: the server flushes in the background. A stream cannot change it, and replicas cannot have it.
    persist_mode: str | msgspec.UnsetType = msgspec.UNSET


class StreamState(msgspec.Struct, frozen=True):
    """What a stream holds."""

    messages: int = 0
    first_seq: int = 0
    last_seq: int = 0
    #: Messages by subject, if the request asked for them.
    subjects: dict[str, int] = {}


class _StreamReply(msgspec.Struct, frozen=True):
    #: How many subjects there are, if asked for; a reply has one page of them.
    total: int = 0
    config: dict[str, Any] = {}
    created: str = ""
    state: StreamState = StreamState()
    error: ApiError | None = None


class Place(msgspec.Struct, frozen=True):
    """A consumer's position in its stream."""

    stream_seq: int = 0


class ConsumerReply(msgspec.Struct, frozen=True):
    """A consumer: how many messages it will still deliver, and how many are not acknowledged yet."""

    name: str = ""
    num_pending: int = 0
    num_ack_pending: int = 0
    delivered: Place = Place()
    error: ApiError | None = None


class Answer(msgspec.Struct, frozen=True):
    error: ApiError | None = None


R = TypeVar("R", _StreamReply, ConsumerReply, Answer)


async def call(bus: Bus, verb: str, body: object, kind: type[R], *, deadline: Deadline) -> R:
    """Send a request to the JetStream API and return its answer; raise its errors as ours."""
    what = f"JetStream {verb}"
    try:
        reply = await bus.request(
            f"{bus.options.api}.{verb}", msgspec.json.encode(body), deadline=deadline.sooner(ANSWER)
        )
    except NoResponderError as error:
        raise errors.no_jetstream(what) from error
    try:
        answer = msgspec.json.decode(reply.body, type=kind)
    except msgspec.DecodeError as error:
        raise BusUnavailableError(f"{what}: the answer is not valid JSON", remedy=errors.UPGRADE) from error
    if answer.error is not None:
        errors.raise_api(answer.error, what)
    return answer


async def ensure_stream(bus: Bus, config: StreamConfig, *, deadline: Deadline) -> None:
    """Create the stream, or update it if it differs; safe to repeat and to race.

    Raises InvalidRequestError for a difference that the server cannot update, such as the retention.
    """
    try:
        there = await call(bus, f"STREAM.INFO.{config.name}", {}, _StreamReply, deadline=deadline)
    except errors.StreamMissingError:
        # To the server, creating it twice with the same configuration is one creation.
        await call(bus, f"STREAM.CREATE.{config.name}", config, _StreamReply, deadline=deadline)
        return
    wanted: dict[str, Any] = msgspec.to_builtins(config)
    # Decided when the stream was made.
    wanted.pop("persist_mode", None)
    current = {name: there.config.get(name, default) for name, default in _UNSET.items()} | there.config
    if any(current.get(name) != value for name, value in wanted.items()):
        # What we do not declare (description, placement, metadata) stays as the operator set it.
        await call(bus, f"STREAM.UPDATE.{config.name}", there.config | wanted, _StreamReply, deadline=deadline)


async def stream_state(bus: Bus, stream: str, *, deadline: Deadline) -> StreamState:
    """Return what the stream holds; raises StreamMissingError."""
    return (await call(bus, f"STREAM.INFO.{stream}", {}, _StreamReply, deadline=deadline)).state


async def stream_birth(bus: Bus, stream: str, *, deadline: Deadline) -> str:
    """Return when the stream was created, which differs if it was made anew; raises StreamMissingError."""
    return (await call(bus, f"STREAM.INFO.{stream}", {}, _StreamReply, deadline=deadline)).created


async def stream_birth_and_state(bus: Bus, stream: str, *, deadline: Deadline) -> tuple[str, StreamState]:
    """Return both from one reply; raises StreamMissingError."""
    there = await call(bus, f"STREAM.INFO.{stream}", {}, _StreamReply, deadline=deadline)
    return there.created, there.state


async def subject_counts(bus: Bus, stream: str, filter_subject: str, *, deadline: Deadline) -> dict[str, int]:
    """Return how many messages each subject under the filter has; raises StreamMissingError."""
    found: dict[str, int] = {}
    while True:
        body = {"subjects_filter": filter_subject, "offset": len(found)}
        page = await call(bus, f"STREAM.INFO.{stream}", body, _StreamReply, deadline=deadline)
        found |= page.state.subjects
        if not page.state.subjects or len(found) >= page.total:
            return found


async def purge(bus: Bus, stream: str, subject: str, *, up_to: int | None = None, deadline: Deadline) -> None:
    """Remove the messages of a subject; with `up_to` only up to that sequence."""
    body: dict[str, object] = {"filter": subject} if up_to is None else {"filter": subject, "seq": up_to + 1}
    await call(bus, f"STREAM.PURGE.{stream}", body, Answer, deadline=deadline)


async def create_consumer(
    bus: Bus, stream: str, config: dict[str, object], *, filter_subject: str, deadline: Deadline
) -> ConsumerReply:
    """Create a consumer, or find the one of that name; the filter is in the subject, where permissions apply to it."""
    body = {"stream_name": stream, "config": {**config, "filter_subject": filter_subject}}
    verb = f"CONSUMER.CREATE.{stream}.{config['name']}.{filter_subject}"
    return await call(bus, verb, body, ConsumerReply, deadline=deadline)


async def has_consumer(bus: Bus, stream: str, name: str, *, deadline: Deadline) -> bool:
    """Return whether the stream has a consumer of that name; False also without a stream."""
    try:
        await _consumer(bus, stream, name, deadline=deadline)
    except (errors.ConsumerMissingError, errors.StreamMissingError):
        return False
    return True


async def passes_over(bus: Bus, stream: str, name: str, *, filter_subject: str, deadline: Deadline) -> bool:
    """Return whether a work queue's consumer is beyond messages that it should still deliver.

    False if the stream or the consumer is missing.
    """
    try:
        before = await _consumer(bus, stream, name, deadline=deadline)
        body = {"subjects_filter": filter_subject}
        state = (await call(bus, f"STREAM.INFO.{stream}", body, _StreamReply, deadline=deadline)).state
        if before.delivered.stream_seq > state.last_seq:
            return True
        if before.num_pending or before.num_ack_pending or not state.subjects:
            return False
        # A message that came in between is pending now.
        after = await _consumer(bus, stream, name, deadline=deadline)
    except (errors.ConsumerMissingError, errors.StreamMissingError):
        return False
    return not after.num_pending and not after.num_ack_pending


async def unacknowledged(bus: Bus, stream: str, name: str, *, deadline: Deadline) -> int:
    """Return how many messages a consumer has still to deliver or waits to be acknowledged."""
    consumer = await _consumer(bus, stream, name, deadline=deadline)
    return consumer.num_pending + consumer.num_ack_pending


async def _consumer(bus: Bus, stream: str, name: str, *, deadline: Deadline) -> ConsumerReply:
    return await call(bus, f"CONSUMER.INFO.{stream}.{name}", {}, ConsumerReply, deadline=deadline)


async def delete_consumer(bus: Bus, stream: str, name: str, *, deadline: Deadline) -> None:
    """Delete a consumer; one that is gone already is fine."""
    try:
        await call(bus, f"CONSUMER.DELETE.{stream}.{name}", {}, Answer, deadline=deadline)
    except (errors.ConsumerMissingError, errors.StreamMissingError):
        return


async def last_of(bus: Bus, stream: str, subject: str, *, deadline: Deadline) -> Message | None:
    """Return the last message of one subject, None when the stream holds none; raises StreamMissingError.

    A direct read: with several replicas it may be a moment behind, so only a compare-and-set may decide.
    """
    try:
        reply = await bus.request(f"{bus.options.api}.DIRECT.GET.{stream}.{subject}", deadline=deadline.sooner(ANSWER))
    except NoResponderError as error:
        raise errors.StreamMissingError(f"stream {stream} does not exist") from error
    if not reply.body and (status := errors.status_of(reply.headers)):
        if status == 404:
            return None
        raise BusUnavailableError(f"reading {subject}: {reply.headers.get('Description', status)}", remedy=errors.STUCK)
    return reply


async def last_of_each(
    bus: Bus, stream: str, subjects: Sequence[str], *, deadline: Deadline
) -> AsyncGenerator[Message]:
    """Yield the last message of each of `subjects` that has one, in the order of the stream; raises StreamMissingError.

    Direct reads, as `last_of`; the server answers `LAST_OF` subjects at once.
    """
    inbox = bus.new_inbox()
    async with bus.subscribe(inbox, bound=2 * LAST_OF, settled=False) as replies:
        for start in range(0, len(subjects), LAST_OF):
            body = {"multi_last": subjects[start : start + LAST_OF], "batch": LAST_OF}
            await bus.publish(f"{bus.options.api}.DIRECT.GET.{stream}", msgspec.json.encode(body), reply=inbox)
            while True:
                async with deadline.sooner(ANSWER).scope(f"reading stream {stream}"):
                    message = await anext(replies)
                if "Nats-Sequence" not in message.headers:
                    break
                yield message
            _more(message, errors.status_of(message.headers), stream)


async def read_from(
    bus: Bus, stream: str, filter_subject: str, *, start: int, batch: int = BATCH, deadline: Deadline
) -> AsyncGenerator[Message]:
    """Yield every message under `filter_subject` from sequence `start` on, oldest first; raises StreamMissingError.

    The server sends `batch` messages for each request, so no more wait here.
    """
    inbox = bus.new_inbox()
    # The subscription goes first on the same connection, so the server has it before the requests.
    async with bus.subscribe(inbox, bound=2 * batch, settled=False) as replies:
        while True:
            body = {"seq": start, "next_by_subj": filter_subject, "batch": batch}
            await bus.publish(f"{bus.options.api}.DIRECT.GET.{stream}", msgspec.json.encode(body), reply=inbox)
            while True:
                # For each answer anew: the reader's own work in between does not count.
                async with deadline.sooner(ANSWER).scope(f"reading stream {stream}"):
                    message = await anext(replies)
                status = 0 if "Nats-Sequence" in message.headers else errors.status_of(message.headers)
                if status:
                    break
                start = sequence_of(message) + 1
                yield message
            if not _more(message, status, stream):
                return


def sequence_of(message: Message) -> int:
    """Return the stream sequence of a directly read message, 0 when it has none."""
    text = message.headers.get("Nats-Sequence", "")
    return int(text) if text.isdigit() else 0


def subject_of(message: Message) -> str:
    """Return the subject that a directly read message was stored under."""
    return message.headers.get("Nats-Subject", "")


def _more(end: Message, status: int, stream: str) -> bool:
    if status == 404:
        return False
    if status == 503:
        raise errors.StreamMissingError(f"stream {stream} does not exist")
    if status != 204:
        raise BusUnavailableError(
            f"reading stream {stream}: {end.headers.get('Description', status)}", remedy=errors.STUCK
        )
    return end.headers.get("Nats-Num-Pending", "0") != "0"


#: The defaults that the server leaves out of a configuration.
_UNSET: dict[str, object] = {
    "allow_msg_ttl": False,
    "subject_delete_marker_ttl": 0,
    "allow_rollup_hdrs": False,
    "allow_direct": False,
    "deny_delete": False,
    "no_ack": False,
}


def nanoseconds(seconds: float) -> int:
    """Return `seconds` in the unit of the API."""
    return round(seconds * _SECOND)
