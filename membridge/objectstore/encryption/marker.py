"""The marker of an encrypted store: it keeps a node without a key from writing plain objects there.

The marker is a small plain object: the id of the key that encrypts the store, and the salt for a passphrase. It
protects from mistakes, not from the store's operator: what an operator changes, the encryption of each object detects.
"""

import secrets
from contextlib import suppress
from typing import Annotated

import msgspec

from membridge.aio.deadline import Deadline
from membridge.errors import CorruptObjectError, ObjectExistsError, ObjectMissingError
from membridge.objectstore.encryption.keys import SALT
from membridge.objectstore.protocol import ObjectStore

#: The first bytes of every encrypted object.
MAGIC = b"\x89MBSEAL\n"
#: The marker's key.
KEY = "sealing.json"
#: Seconds after which the marker is read again: another node may have turned encryption on, or rotated the key.
LOOK_EVERY = 60.0


class Marker(msgspec.Struct, frozen=True, kw_only=True):
    """The id of the key that encrypts a store, and the salt for a passphrase."""

    format: int = 1
    key_id: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{16}\Z")]
    salt: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{32}\Z")]


def new_salt() -> bytes:
    """Return a salt for a passphrase."""
    return secrets.token_bytes(SALT)


async def read(store: ObjectStore, *, deadline: Deadline) -> Marker | None:
    """Return the store's marker, None for a store that is not encrypted."""
    try:
        body = await store.get(KEY, deadline=deadline)
    except ObjectMissingError:
        return None
    try:
        return msgspec.json.decode(body, type=Marker)
    except msgspec.DecodeError as error:
        raise CorruptObjectError(
            f"object {KEY}, the marker of an encrypted store, is damaged",
            remedy="delete it from the store: the next node with a key writes it anew",
        ) from error


async def write(store: ObjectStore, marker: Marker, *, if_absent: bool, deadline: Deadline) -> None:
    """Write the marker; with `if_absent` one that another node wrote first stays."""
    with suppress(ObjectExistsError):
        await store.put(KEY, msgspec.json.encode(marker), if_absent=if_absent, deadline=deadline)
