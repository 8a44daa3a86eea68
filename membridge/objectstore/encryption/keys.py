"""Keys that seal objects: where they come from, how they are named, and the file that holds them.

A key is 32 random bytes, or what a passphrase and a salt give. Its id, eight bytes that tell nothing of it, stands in
every object that it sealed. In a key file the first key seals and all of them open: that is how keys are rotated.
"""

import base64
import binascii
import hashlib
import hmac
import os
import secrets
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from membridge.errors import EncryptionKeyError
from membridge.system import files

#: Bytes of a key, of its id and of the salt that makes one of a passphrase.
KEY, ID, SALT = 32, 8, 16
#: The salt of a key that no passphrase made.
NO_SALT = bytes(SALT)
#: Argon2id's passes and memory in bytes, the second choice of RFC 9106; fixed, so that no store can ask for less.
PASSES, MEMORY = 3, 64 << 20
#: Salts for which one process makes a key of its passphrase: a store full of invented ones must not keep it busy.
MOST_SALTS = 8
#: Largest key file, in bytes.
MAX_FILE = 16 << 10

#: How a missing key is put right.
COPY_KEY = (
    "copy the key file of a node that reads this store and set MEMBRIDGE_ENCRYPTION_KEY_FILE, "
    "or set its MEMBRIDGE_ENCRYPTION_PASSPHRASE"
)


@dataclass(frozen=True, slots=True, repr=False)
class Key:
    """A key; `salt` is what made it of a passphrase. Never printed but by its id."""

    secret: bytes
    salt: bytes = NO_SALT

    @property
    def id(self) -> str:
        """The key's name: 16 hex digits."""
        return derived(self.secret, salt=b"", info=b"membridge key id")[:ID].hex()

    def __repr__(self) -> str:
        return f"Key({self.id})"


class KeySource:
    """Where this node's keys are: a key file, a passphrase, or both; then the file's seal and the passphrase opens.

    Called from threads. The file is read each time, so that a rotation needs no restart; `stamp` says cheaply whether
    it is another one than before.
    """

    def __init__(self, *, file: Path | None = None, passphrase: str | None = None) -> None:
        self._file, self._passphrase = file, passphrase
        self._made: dict[bytes, Key] = {}

    def load(self, salt: bytes) -> tuple[Key, ...]:
        """Return the keys, the one that seals first; `salt` is the store's. Raises EncryptionKeyError."""
        keys = read_file(self._file) if self._file else ()
        made = self.from_passphrase(salt)
        return (*keys, made) if made else keys

    def stamp(self) -> tuple[int, ...]:
        """Return what changes with the key file; nothing where there is no file."""
        try:
            found = self._file.stat() if self._file else None
        except OSError:
            return ()
        return (found.st_ino, found.st_mtime_ns, found.st_size, found.st_mode) if found else ()

    def from_passphrase(self, salt: bytes) -> Key | None:
        """Return the passphrase's key under `salt`; None without a passphrase, or where there are too many salts."""
        if self._passphrase is None or salt == NO_SALT:
            return None
        if salt not in self._made and len(self._made) < MOST_SALTS:
            self._made[salt] = Key(_stretched(self._passphrase.encode(), salt), salt)
        return self._made.get(salt)


def derived(secret: bytes, *, salt: bytes, info: bytes) -> bytes:
    """Return 32 bytes by HKDF-SHA256 (RFC 5869)."""
    extracted = hmac.digest(salt or bytes(32), secret, hashlib.sha256)
    return hmac.digest(extracted, info + b"\x01", hashlib.sha256)


def new_key() -> Key:
    """Return a random key."""
    return Key(secrets.token_bytes(KEY))


def read_file(path: Path) -> tuple[Key, ...]:
    """Return the keys in `path`; EncryptionKeyError where there is none, others may read it, or a line is not a key."""
    try:
        with path.open("rb") as file:
            mode, text = os.fstat(file.fileno()).st_mode, file.read(MAX_FILE + 1)
    except OSError as error:
        raise files.meaning(error, path, otherwise=EncryptionKeyError, remedy=COPY_KEY) from error
    if stat.S_IMODE(mode) & 0o077:
        raise EncryptionKeyError(f"others may read the key file {path}", remedy=f"run `chmod 600 {path}`")
    lines = text.decode("utf-8", "replace").splitlines() if len(text) <= MAX_FILE else [""]
    keys = [_parsed(path, number, line) for number, line in enumerate(lines, 1) if line.strip() and line[0] != "#"]
    if not keys:
        raise EncryptionKeyError(
            f"the key file {path} holds no key", remedy="run `membridge key new`, or copy it again"
        )
    return tuple(keys)


def key_text(keys: Sequence[Key]) -> str:
    """Return what a key file holds."""
    lines = ["# Membridge: the first key seals, all of them open. Keep a copy where the object store is not."]
    lines += [f"{key.id} {base64.b64encode(key.secret).decode()}" for key in keys]
    return "\n".join([*lines, ""])


def write_file(path: Path, keys: Sequence[Key]) -> None:
    """Write a key file that only its owner reads; after a power cut either the old or the new one is there."""
    files.save(path, key_text(keys).encode())


def _parsed(path: Path, number: int, line: str) -> Key:
    words = line.split()
    try:
        key = Key(base64.b64decode(words[-1], validate=True))
    except (binascii.Error, ValueError):
        key = Key(b"")
    if len(key.secret) != KEY or len(words) > 2 or (len(words) == 2 and words[0] != key.id):
        raise EncryptionKeyError(
            f"line {number} of the key file {path} is not a key", remedy="copy the file again from another node"
        )
    return key


def _stretched(passphrase: bytes, salt: bytes) -> bytes:
    import nacl.bindings as sodium  # noqa: PLC0415 - loaded only where something is sealed

    algorithm = sodium.crypto_pwhash_ALG_ARGON2ID13
    return sodium.crypto_pwhash_alg(KEY, passphrase, salt, PASSES, MEMORY, algorithm)
