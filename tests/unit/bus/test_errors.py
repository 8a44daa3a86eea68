"""Every foreign failure leaves as one of ours."""

import inspect

import nats.errors
import pytest

from membridge.bus import errors
from membridge.bus.errors import ApiError, of_client
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
from schemas.errors import Retry

#: Those that need arguments to be made; they are never raised to a caller of ours.
NEED_ARGUMENTS = {"SlowConsumerError"}
FOREIGN = [
    kind
    for name, kind in inspect.getmembers(nats.errors, inspect.isclass)
    if issubclass(kind, nats.errors.Error) and name not in NEED_ARGUMENTS
]


@pytest.mark.parametrize("foreign", FOREIGN, ids=lambda kind: kind.__name__)
def test_no_exception_of_the_client_library_gets_out(foreign: type[Exception]) -> None:
    ours = of_client(foreign(), "publishing to x")
    assert ours.message.startswith("publishing to x")


@pytest.mark.parametrize(
    ("foreign", "ours"),
    [
        (nats.errors.NoRespondersError(), NoResponderError),
        (nats.errors.TimeoutError(), DeadlineExceededError),
        (nats.errors.MaxPayloadError(), TooLargeError),
        (nats.errors.BadSubjectError(), InvalidRequestError),
        (nats.errors.OutboundBufferLimitError(), BusUnavailableError),
        (nats.errors.AuthorizationError(), CredentialsError),
        (nats.errors.Error("nats: 'Authorization Violation'"), CredentialsError),
        (nats.errors.Error("nats: 'User Authentication Expired'"), CredentialsError),
        (nats.errors.Error("nats: 'Authentication Timeout'"), BusUnavailableError),
        (ConnectionResetError(104, "reset"), BusUnavailableError),
    ],
    ids=lambda value: value.__class__.__name__ if isinstance(value, Exception) else value.__name__,
)
def test_each_becomes_the_nearest_of_ours(foreign: Exception, ours: type[MembridgeError]) -> None:
    assert type(of_client(foreign, "x")) is ours


@pytest.mark.parametrize(
    ("code", "err_code", "ours"),
    [
        (400, 10071, RevisionMovedError),
        (400, 10164, RevisionMovedError),
        (404, 10059, errors.StreamMissingError),
        (404, 10014, errors.ConsumerMissingError),
        (400, 10077, DiskFullError),
        (503, 10039, BusUnavailableError),
        (404, 10037, NotFoundError),
        (400, 10003, InvalidRequestError),
        (500, 10999, BusUnavailableError),
    ],
)
def test_errors_of_jetstream_become_ours(code: int, err_code: int, ours: type[MembridgeError]) -> None:
    with pytest.raises(ours) as raised:
        errors.raise_api(ApiError(code, err_code, "the server's words"), "storing")
    assert raised.value.message.startswith("storing")


@pytest.mark.parametrize("lost", [errors.StreamMissingError, errors.ConsumerMissingError])
def test_what_a_server_lost_is_worth_another_try(lost: type[MembridgeError]) -> None:
    assert lost("gone").mapping.retry is Retry.YES
    assert not isinstance(lost("gone"), NotFoundError)


@pytest.mark.parametrize(("headers", "status"), [({}, 0), ({"Status": "503"}, 503), ({"Status": "x"}, 0)])
def test_a_status_is_a_number_or_none(headers: dict[str, str], status: int) -> None:
    assert errors.status_of(headers) == status
