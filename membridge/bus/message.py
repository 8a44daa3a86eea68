"""A message as the rest of the system sees it: plain data, independent of the client library."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

#: The beginning of every reply subject: the clients' default, and ours.
INBOX = "_INBOX"
#: Header: which part of a reply a message is, and of how many: `2/3`.
PART = "Membridge-Part"

_NONE: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Message:
    """A message on `subject`; `reply` is empty if the sender expects no answer."""

    subject: str
    reply: str = ""
    headers: Mapping[str, str] = field(default_factory=lambda: _NONE)
    body: bytes = b""


def plain(subject: str, reply: str, headers: Mapping[str, str] | None, body: bytes) -> Message:
    """Build a message from the client library's parts; its header names may be enum members."""
    named = {str.__str__(name): value for name, value in headers.items()} if headers else _NONE
    return Message(subject, reply, named, body)


def size_of(headers: Mapping[str, str] | None) -> int:
    """Return an upper bound of the bytes that `headers` take on the wire."""
    if not headers:
        return 0
    return 16 + sum(len(name.encode()) + len(value.encode()) + 4 for name, value in headers.items())
