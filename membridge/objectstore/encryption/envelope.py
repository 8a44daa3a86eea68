"""The format of an encrypted object: a header and frames, each one AEAD message. Bytes in, bytes out, no store.

ChaCha20-Poly1305 in the STREAM construction: a key for each object by HKDF of a random salt; the nonce is a counter and
a last-frame flag. The header and the object's name are bound to every frame, so an object that was changed, cut,
reordered, extended, or served under another name does not decrypt.
"""

import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import nacl.bindings as sodium
import nacl.exceptions

from membridge.errors import CorruptObjectError, ObjectNotEncryptedError, UnsupportedFormatError
from membridge.objectstore.encryption.keys import ID, SALT, Key, derived
from membridge.objectstore.encryption.marker import MAGIC

VERSION = 1
#: Bytes of an object's own salt.
OBJECT_SALT = 32
#: Bytes of the header: magic, version, key id, the passphrase's salt, the object's salt.
HEADER = len(MAGIC) + 1 + ID + SALT + OBJECT_SALT
#: Bytes of content in a frame, of its authentication tag, and of a whole frame.
CONTENT, TAG = 64 << 10, 16
FRAME = CONTENT + TAG
_COUNTER = 11


@dataclass(frozen=True, slots=True)
class Header:
    """The bytes before the frames: the key's id, and the salts from which the object's own key is derived."""

    key_id: str
    key_salt: bytes
    object_salt: bytes

    def packed(self) -> bytes:
        """Return the header's bytes."""
        return MAGIC + bytes([VERSION]) + bytes.fromhex(self.key_id) + self.key_salt + self.object_salt


class ObjectCipher:
    """Encrypts and decrypts the frames of one object under one name."""

    def __init__(self, key: Key, header: Header, name: str) -> None:
        self._name, self._bound = name, header.packed() + name.encode()
        self._secret = derived(key.secret, salt=header.object_salt, info=b"membridge object")

    def close(self, content: bytes, number: int, *, last: bool) -> bytes:
        """Encrypt a frame."""
        return sodium.crypto_aead_chacha20poly1305_ietf_encrypt(
            content, self._bound, _nonce(number, last=last), self._secret
        )

    def open(self, frame: bytes, number: int, *, last: bool) -> bytes:
        """Decrypt a frame; CorruptObjectError when it is not the one that was encrypted at this place."""
        if len(frame) < TAG:
            raise damaged(self._name)
        try:
            content = sodium.crypto_aead_chacha20poly1305_ietf_decrypt(
                frame, self._bound, _nonce(number, last=last), self._secret
            )
        except nacl.exceptions.CryptoError as error:
            raise damaged(self._name) from error
        if last and number and not content:
            raise damaged(self._name)
        return content


def encrypt(source: BinaryIO, name: str, key: Key) -> Iterator[bytes]:
    """Yield `source` as an encrypted object: its header, then its frames."""
    header = Header(key.id, key.salt, secrets.token_bytes(OBJECT_SALT))
    one = ObjectCipher(key, header, name)
    yield header.packed()
    number, content = 0, source.read(CONTENT)
    while following := source.read(CONTENT):
        yield one.close(content, number, last=False)
        number, content = number + 1, following
    yield one.close(content, number, last=True)


def decrypt(source: BinaryIO, one: ObjectCipher, *, first: int = 0) -> Iterator[bytes]:
    """Yield the content of the frames in `source` up to the object's end; the first has the number `first`.

    Each is authenticated when it is yielded, the object's end when the iterator ends.
    """
    number, frame = first, source.read(FRAME)
    while following := source.read(FRAME):
        yield one.open(frame, number, last=False)
        number, frame = number + 1, following
    yield one.open(frame, number, last=True)


def parse(raw: bytes, name: str) -> Header:
    """Return the header at the start of an object.

    Errors: ObjectNotEncryptedError; CorruptObjectError for one that is cut; UnsupportedFormatError for a newer version.
    """
    if not raw.startswith(MAGIC):
        raise ObjectNotEncryptedError(
            f"object {name} is not encrypted, and with encryption on only encrypted objects are read",
            remedy="if it is from before encryption was on, run `membridge key seal` once",
        )
    if len(raw) < HEADER:
        raise damaged(name)
    at = len(MAGIC)
    if raw[at] != VERSION:
        raise UnsupportedFormatError(
            f"object {name} is encrypted in format {raw[at]}, this version reads format {VERSION}"
        )
    return Header(
        raw[at + 1 : at + 1 + ID].hex(), raw[at + 1 + ID : HEADER - OBJECT_SALT], raw[HEADER - OBJECT_SALT : HEADER]
    )


def damaged(name: str) -> CorruptObjectError:
    """Return the error of an object that does not decrypt."""
    return CorruptObjectError(
        f"object {name} was damaged or exchanged in the object store: it does not decrypt",
        remedy="restore it from the store's backup, or run `membridge recover --from mirror` on the primary",
    )


def frames_of(stored: int) -> int:
    """Return how many frames an encrypted object of `stored` bytes has."""
    return max(1, -(-(stored - HEADER) // FRAME))


def content_size(stored: int) -> int:
    """Return the content's size in an encrypted object of `stored` bytes; `stored` itself if too small for one."""
    size = stored - HEADER - frames_of(stored) * TAG
    return size if size >= 0 else stored


def _nonce(number: int, *, last: bool) -> bytes:
    return number.to_bytes(_COUNTER, "big") + bytes([last])
