"""Ids: one type per idea, parsed once.

An id that reaches a subject, a KV key or an object key went through a constructor here, so no dot, space or wildcard
can widen what it addresses.
"""

import hashlib
import re
from typing import Annotated, NewType

import msgspec

from schemas.fields import MOST_WHOLE

#: One subject token: what may stand between two dots (NATS ADR-6, restricted-term), wildcards excluded.
TOKEN = re.compile(r"[A-Za-z0-9_-]{1,64}")
#: A project's canonical id: 16 hex digits.
PROJECT = re.compile(r"[0-9a-f]{16}")

ProjectId = NewType("ProjectId", str)
NodeId = NewType("NodeId", str)

#: The forms the ids take on the wire, where msgspec checks them.
WireProjectId = Annotated[ProjectId, msgspec.Meta(pattern=r"^[0-9a-f]{16}\Z")]
WireNodeId = Annotated[NodeId, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]{1,64}\Z")]
Sha256 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
Epoch = Annotated[int, msgspec.Meta(ge=0, le=MOST_WHOLE)]
Seq = Annotated[int, msgspec.Meta(ge=0, le=MOST_WHOLE)]


class InvalidTokenError(ValueError):
    """Text that a subject or key may not contain; the message says what is allowed."""


def canonical_id(name: str) -> ProjectId:
    """Return the canonical id of the project called `name`: the first 16 hex digits of its name's sha256."""
    if not name or len(name) > 256:
        raise InvalidTokenError("a project name has 1 to 256 characters")
    return ProjectId(hashlib.sha256(name.encode()).hexdigest()[:16])


def project_id(text: str) -> ProjectId:
    """Return `text` as a canonical id; raise InvalidTokenError when it is not one."""
    if not PROJECT.fullmatch(text):
        raise InvalidTokenError(f"{text!r} is not a canonical project id: 16 hex digits")
    return ProjectId(text)


def node_id(text: str) -> NodeId:
    """Return `text` as a node id; raise InvalidTokenError when it is not one token."""
    return NodeId(token(text, "node id"))


def node_id_of_host(hostname: str) -> NodeId:
    """Return the default node id of a machine: its host name with what a token may not hold written as `-`."""
    return NodeId(re.sub(r"[^A-Za-z0-9_-]", "-", hostname)[:64] or "node")


def token(text: str, what: str = "token") -> str:
    """Return `text` when it may stand between two dots of a subject; raise InvalidTokenError otherwise."""
    if not TOKEN.fullmatch(text):
        raise InvalidTokenError(f"{what} {text!r} is not allowed: 1 to 64 of A-Z a-z 0-9 _ -")
    return text
