"""nkeys, the Ed25519 keys of NATS users: their text, their public half, and the signature that a server asks for.

A seed is 32 random bytes with a two-byte prefix and a CRC-16, in base32. PyNaCl is imported where a key is used: most
processes of a home without users never do.
"""

import base64
import binascii
import os
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise

#: First byte of a seed, and of a user's public key: they make the text begin with S, and with U.
_SEED, _USER = 18 << 3, 20 << 3
_PREFIX = bytes([_SEED | _USER >> 5, (_USER & 31) << 3])
_SECRET, _CRC = 32, 2
_JWT, _KEY = b"BEGIN NATS USER JWT", b"BEGIN USER NKEY SEED"


@dataclass(frozen=True)
class UserKey:
    """The key of a NATS user; its secret is never printed."""

    secret: bytes = field(repr=False)

    @property
    def public(self) -> str:
        """The public key, as servers and members know this user: U and 55 more letters."""
        return encoded(bytes([_USER]) + self._pair[0])

    @property
    def seed(self) -> str:
        """The text that a key file holds: SU and 56 more letters."""
        return encoded(_PREFIX + self.secret)

    def sign(self, nonce: bytes) -> bytes:
        """Return the signature of `nonce`, as the server wants it: 64 bytes in base64."""
        from nacl.bindings import crypto_sign  # noqa: PLC0415 - loaded only where a key is used

        return base64.b64encode(crypto_sign(nonce, self._pair[1])[:64])

    @cached_property
    def _pair(self) -> tuple[bytes, bytes]:
        from nacl.bindings import crypto_sign_seed_keypair  # noqa: PLC0415 - loaded only where a key is used

        return crypto_sign_seed_keypair(self.secret)


def new_key() -> UserKey:
    """Make a key."""
    return UserKey(os.urandom(_SECRET))


def from_seed(text: bytes) -> UserKey:
    """Return the key whose seed `text` is; raises ValueError for all but the whole seed of a user."""
    seed = text.strip()
    try:
        raw = base64.b32decode(seed + b"=" * (-len(seed) % 8))
    except binascii.Error as error:
        raise ValueError("it is not base32") from error
    payload, crc = raw[:-_CRC], raw[-_CRC:]
    if len(payload) != len(_PREFIX) + _SECRET or crc != _crc(payload):
        raise ValueError("it is cut or has a wrong letter")
    if not payload.startswith(_PREFIX):
        raise ValueError("it is not the seed of a user")
    return UserKey(payload[len(_PREFIX) :])


def of_credentials(text: bytes) -> tuple[bytes, UserKey]:
    """Return JWT and key of a credentials file, as `nsc generate creds` writes one. Raises ValueError."""
    lines = text.splitlines()
    jwt, seed = _after(lines, _JWT), _after(lines, _KEY)
    if not jwt or not seed:
        raise ValueError("it lacks the user's JWT or seed")
    return jwt, from_seed(seed)


def _after(lines: list[bytes], mark: bytes) -> bytes:
    found = (following for line, following in pairwise(lines) if mark in line)
    return next(found, b"").strip()


def encoded(payload: bytes) -> str:
    """Return the text of prefix and key in `payload`, with its CRC."""
    return base64.b32encode(payload + _crc(payload)).rstrip(b"=").decode()


def _crc(payload: bytes) -> bytes:
    return binascii.crc_hqx(payload, 0).to_bytes(_CRC, "little")
