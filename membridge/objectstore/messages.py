"""Messages of the object store in NATS, the answers to them, and their failures as errors of ours."""

import asyncio
import base64
from collections.abc import Generator
from contextlib import contextmanager

import msgspec
import nats.errors

from membridge.aio.deadline import Deadline
from membridge.errors import DeadlineExceededError, DiskFullError, ObjectExistsError, StoreUnavailableError

#: The layout's usual size of a chunk.
CHUNK = 128 << 10
#: Seconds that one answer may take.
ANSWER = 10.0
#: JetStream's error numbers: another writer was first; no room left.
TAKEN, FULL = frozenset({10071, 10164}), frozenset({10047, 10077, 10023})


class _Error(msgspec.Struct):
    code: int = 0
    err_code: int = 0
    description: str = ""


class Ack(msgspec.Struct):
    """JetStream's answer to a request."""

    seq: int = 0
    error: _Error | None = None


class _Options(msgspec.Struct):
    max_chunk_size: int = CHUNK


class _State(msgspec.Struct):
    subjects: dict[str, int] = {}


class Info(msgspec.Struct):
    """What a stream holds under a filter, by subject."""

    total: int = 0
    state: _State = msgspec.field(default_factory=_State)


class Meta(msgspec.Struct, omit_defaults=False):
    """The meta message of an object, as the Object Store's layout (ADR-20) has it."""

    name: str
    bucket: str
    nuid: str
    size: int
    chunks: int
    mtime: str = ""
    digest: str = ""
    deleted: bool = False
    options: _Options = msgspec.field(default_factory=_Options)


def patience(deadline: Deadline) -> float:
    """Return the seconds to wait for one answer: one that a broken connection swallowed never comes."""
    return max(min(deadline.remaining(), ANSWER), 0.001)


@contextmanager
def cancellable() -> Generator[None]:
    """Let a cancellation through that came together with the answer.

    nats-py waits with `asyncio.wait_for`, which on Python 3.11 then returns the answer and forgets the cancellation.
    """
    task = asyncio.current_task()
    before = task.cancelling() if task else 0
    yield
    if task is not None and task.cancelling() > before:
        raise asyncio.CancelledError


def ack_of(body: bytes) -> Ack:
    """Return the answer in `body`; raise StoreUnavailableError for one that is not JetStream's."""
    try:
        return msgspec.json.decode(body, type=Ack)
    except msgspec.DecodeError as error:
        raise StoreUnavailableError("the object store's answer is not JetStream's") from error


def check(ack: Ack, what: str) -> None:
    """Raise the error of a negative acknowledgement."""
    if ack.error is None:
        return
    if ack.error.err_code in TAKEN:
        raise ObjectExistsError(f"{what}: the key is taken")
    if ack.error.err_code in FULL:
        raise DiskFullError(
            f"{what}: the object store is full", remedy="raise max_file_store in nats-server.conf, or use an S3"
        )
    raise StoreUnavailableError(f"{what}: {ack.error.description}")


def decoded(body: bytes) -> Meta | None:
    """Return a meta message, None for a body that is not one."""
    try:
        return msgspec.json.decode(body, type=Meta)
    except msgspec.DecodeError:
        return None


def digest_text(raw: bytes) -> str:
    """Return a sha256 as the layout spells it."""
    return f"SHA-256={base64.urlsafe_b64encode(raw).decode()}"


@contextmanager
def translated(what: str) -> Generator[None]:
    """Raise what nats-py raises in the body as one of our errors."""
    try:
        yield
    except (nats.errors.TimeoutError, TimeoutError) as error:
        raise DeadlineExceededError(f"{what} took too long") from error
    except nats.errors.NoRespondersError as error:
        raise StoreUnavailableError(f"{what}: JetStream does not answer") from error
    except (nats.errors.Error, OSError) as error:
        raise StoreUnavailableError(f"{what}: {type(error).__name__}") from error
