"""The server's state for the doctor: what JetStream holds and may hold, and the server's clock."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

import msgspec

from membridge.aio.deadline import Deadline
from membridge.bus import errors
from membridge.bus.connection import Bus
from membridge.errors import BusUnavailableError
from schemas import streams

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class JetStreamUse:
    """What JetStream holds; a limit of zero or less means that the account has none."""

    streams: int
    storage_bytes: int
    storage_limit_bytes: int


class _Limits(msgspec.Struct):
    max_storage: int = -1


class _Account(msgspec.Struct):
    storage: int = 0
    streams: int = 0
    limits: _Limits = msgspec.field(default_factory=_Limits)


class _Stamped(msgspec.Struct):
    ts: datetime | None = None


async def jetstream_use(bus: Bus, *, deadline: Deadline) -> JetStreamUse:
    """Return what JetStream holds for this account."""
    reply = await bus.request(f"{bus.options.api}.INFO", deadline=deadline)
    account = _decoded(reply.body, _Account)
    return JetStreamUse(account.streams, account.storage, account.limits.max_storage)


async def server_time(bus: Bus, *, deadline: Deadline) -> datetime:
    """Return the server's wall clock, from the time stamp of a reply about a stream."""
    reply = await bus.request(f"{bus.options.api}.STREAM.INFO.{streams.EVENTS.name}", deadline=deadline)
    stamp = _decoded(reply.body, _Stamped).ts
    if stamp is None:
        raise BusUnavailableError("JetStream's answer has no time stamp", remedy=errors.UPGRADE)
    return stamp.astimezone(UTC)


def _decoded(body: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.DecodeError as error:
        raise BusUnavailableError("JetStream's answer is not valid JSON", remedy=errors.UPGRADE) from error
