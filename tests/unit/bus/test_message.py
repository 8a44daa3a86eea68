"""Messages as plain data."""

from enum import Enum

from membridge.bus.message import plain, size_of


class Name(str, Enum):  # noqa: UP042 - as nats-py declares its header names
    DESCRIPTION = "Description"


def test_header_names_are_plain_text_whatever_the_library_used() -> None:
    message = plain("s", "r", {Name.DESCRIPTION: "gone", "Status": "404"}, b"body")
    assert [type(name) for name in message.headers] == [str, str]
    assert message.headers["Description"] == "gone"


def test_no_headers_are_empty_headers() -> None:
    assert dict(plain("s", "", None, b"").headers) == {}


def test_the_size_of_headers_is_never_counted_too_small() -> None:
    headers = {"Nats-Msg-Id": "ü" * 10}
    wire = b"NATS/1.0\r\nNats-Msg-Id: " + "ü".encode() * 10 + b"\r\n\r\n"
    assert size_of(headers) >= len(wire)
    assert size_of(None) == 0
