"""What tells every node that a store is sealed, and keeps one without a key from writing into it unsealed.

The marker is a small unsealed object: the id of the key that the store is sealed with, and the salt for a passphrase.
It protects from mistakes, not from the store's operator: what an operator may not do, the seal of each object finds.
"""

import secrets
from contextlib import suppress
from typing import Annotated

import msgspec

from membridge.aio.deadline import Deadline
from membridge.errors import CorruptObjectError, ObjectExistsError, ObjectMissingError
from membridge.objectstore.encryption.keys import SALT
from membridge.objectstore.protocol import ObjectStore

#: The first bytes of every sealed object.
MAGIC = b"\x89MBSEAL\n"
#: The marker's key.
KEY = "sealing.json"
#: Seconds after which the marker is looked at again: another node may have turned encryption on, or rotated.
LOOK_EVERY = 60.0


class Marker(msgspec.Struct, frozen=True, kw_only=True):
    """Which key a store is sealed with, and the salt that makes a key of a passphrase."""

    format: int = 1
    key_id: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{16}\Z")]
    salt: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{32}\Z")]


def new_salt() -> bytes:
    """Return a salt for a passphrase."""
    return secrets.token_bytes(SALT)


async def read(store: ObjectStore, *, deadline: Deadline) -> Marker | None:
    """Return the store's marker, None for a store that is not sealed."""
    try:
        body = await store.get(KEY, deadline=deadline)
    except ObjectMissingError:
        return None
    try:
        return msgspec.json.decode(body, type=Marker)
    except msgspec.DecodeError as error:
        raise CorruptObjectError(
            f"object {KEY} is damaged", remedy="delete it: the next node with a key writes it anew"
        ) from error


async def write(store: ObjectStore, marker: Marker, *, if_absent: bool, deadline: Deadline) -> None:
    """Write the marker; one that somebody else wrote first stays."""
    with suppress(ObjectExistsError):
        await store.put(KEY, msgspec.json.encode(marker), if_absent=if_absent, deadline=deadline)
