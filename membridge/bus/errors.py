"""Translate every exception of nats-py and every error of the JetStream API into one of ours.

Only this module knows their classes and codes. Refused credentials have no code, only a text; it is part of the
server's protocol.
"""

import re
from collections.abc import Mapping
from typing import NoReturn

import msgspec
from nats import errors

from membridge.errors import (
    BusUnavailableError,
    CredentialsError,
    DeadlineExceededError,
    DiskFullError,
    InvalidRequestError,
    MembridgeError,
    NoResponderError,
    NotFoundError,
    RevisionMovedError,
    TooLargeError,
)

#: JetStream: the expected last sequence is not the last one, found at once or during the write.
WRONG_LAST_SEQUENCE = frozenset({10071, 10164})
#: JetStream: the stream or the consumer does not exist.
STREAM_NOT_FOUND = 10059
CONSUMER_NOT_FOUND = 10014
#: JetStream: the consumer's file cannot be read; a server without a cluster has only a text for it.
CONSUMER_STORE, _CONSUMER_STORE = 10104, "error creating store for consumer"
#: JetStream: maximum messages, maximum bytes, the account's or the server's storage.
FULL = frozenset({10023, 10028, 10047, 10077})
#: JetStream: not enabled on the server, not enabled for the account.
NOT_ENABLED = frozenset({10076, 10039})
#: JetStream: a message or batch over its bound.
TOO_LARGE = frozenset({10054})

#: The server's text, as nats-py passes it on.
_NO_PUBLISH = re.compile(r'permissions violation for publish to "([^"]+)"')

_LOST = (
    errors.OutboundBufferLimitError,
    errors.ConnectionClosedError,
    errors.ConnectionReconnectingError,
    errors.ConnectionDrainingError,
    errors.StaleConnectionError,
    errors.NoServersError,
    ConnectionError,
)
_MISUSED = (errors.BadSubjectError, errors.BadHeaderError, errors.BadSubscriptionError)
_TABLE: tuple[tuple[type[Exception] | tuple[type[Exception], ...], type[MembridgeError], str], ...] = (
    (errors.NoRespondersError, NoResponderError, ": no process answers"),
    (TimeoutError, DeadlineExceededError, " took too long"),
    (errors.MaxPayloadError, TooLargeError, ": the message is over the server's limit"),
    (_MISUSED, InvalidRequestError, ": the subject or a header is not valid"),
    (_LOST, BusUnavailableError, ": the connection to NATS is down"),
)


class ApiError(msgspec.Struct, frozen=True):
    """The error in a JetStream reply."""

    code: int = 0
    err_code: int = 0
    description: str = ""


class StreamMissingError(BusUnavailableError):
    """A stream, with all its consumers, is gone: the server's store was wiped or never had it.

    Unavailable, not absent: a node or service that needs it makes it again, so trying again helps.
    """

    default_remedy = "try again: a running node makes it anew"


class ConsumerMissingError(BusUnavailableError):
    """A consumer is gone; its reader makes it anew."""

    default_remedy = "try again"


class ConsumerDamagedError(BusUnavailableError):
    """The server cannot read its file of a consumer, and makes no other of that name on its disk."""

    default_remedy = "try again: a running node makes one in the server's memory"


class KeyFileError(errors.Error):
    """The file of a key went away or is damaged. nats-py lets only its own exceptions through its reconnecting."""


def of_client(error: BaseException, what: str) -> MembridgeError:
    """Return our error for an exception of nats-py or of the socket below it."""
    if is_refusal(error):
        return CredentialsError(f"{what}: NATS refused the credentials", remedy=CREDENTIALS)
    for foreign, ours, sentence in _TABLE:
        if isinstance(error, foreign):
            return ours(f"{what}{sentence}")
    return BusUnavailableError(f"{what}: {_text(error)}")


def is_refusal(error: BaseException) -> bool:
    """Whether the server closed the connection because of the credentials.

    Not after `Authentication Timeout`: then the server never saw them.
    """
    text = str(error).lower()
    return isinstance(error, errors.AuthorizationError) or (
        isinstance(error, errors.Error)
        and ("authorization" in text or "authentication" in text)
        and "timeout" not in text
    )


def refused_subject(error: BaseException) -> str | None:
    """Return the subject that we may not publish to, in lower case; None for any other error."""
    found = _NO_PUBLISH.search(str(error))
    return found[1] if found else None


def raise_api(error: ApiError, what: str) -> NoReturn:
    """Raise our error for an error in a JetStream reply."""
    if error.err_code in WRONG_LAST_SEQUENCE:
        raise RevisionMovedError(f"{what}: another writer was first", remedy="read it again and retry")
    if error.err_code == STREAM_NOT_FOUND:
        raise StreamMissingError(f"{what}: the stream does not exist")
    if error.err_code == CONSUMER_NOT_FOUND:
        raise ConsumerMissingError(f"{what}: the consumer does not exist")
    if error.err_code == CONSUMER_STORE or error.description.startswith(_CONSUMER_STORE):
        raise ConsumerDamagedError(f"{what}: the server's file of the consumer is damaged")
    if error.err_code in FULL:
        raise DiskFullError(
            f"{what}: {error.description}",
            remedy="free disk space where nats-server runs, or raise max_file_store in its nats-server.conf",
        )
    if error.err_code in TOO_LARGE:
        raise TooLargeError(f"{what}: {error.description}")
    if error.err_code in NOT_ENABLED:
        raise no_jetstream(what)
    if error.code == 404:
        raise NotFoundError(f"{what}: {error.description}")
    if error.code == 400:
        raise InvalidRequestError(f"{what}: {error.description}")
    raise BusUnavailableError(f"{what}: {error.description}")


#: What helps if the server accepts connections but its JetStream does not answer.
STUCK = "read nats-server's log and restart it; if its files are damaged: docs/recovery.md, 'NATS was lost'"
#: What helps if the server refuses the credentials.
CREDENTIALS = (
    "compare nats.urls, nats.credentials_file and nats.nkey_seed_file with the server's users: `membridge config show`"
)
#: What helps if the server's JetStream answers otherwise than every supported version does.
UPGRADE = "upgrade nats-server, or use `membridge up`, which brings its own"


def no_jetstream(what: str) -> BusUnavailableError:
    """Return the error for a server whose JetStream is switched off."""
    return BusUnavailableError(
        f"{what}: JetStream is off", remedy="add a `jetstream {}` block to nats-server.conf, or use `membridge up`"
    )


def status_of(headers: Mapping[str, str]) -> int:
    """Return the status that the server put on a message, 0 for a message of another client."""
    status = headers.get("Status", "")
    return int(status) if status.isdigit() else 0


def _text(error: BaseException) -> str:
    return str(error).removeprefix("nats: ").strip("'\" ") or type(error).__name__
