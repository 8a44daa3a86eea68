"""Encryption keys: where they come from, how they are named, and the file that holds them.

A key is 32 random bytes, or derived from a passphrase and a salt. Its id, eight bytes that do not reveal it, is in
every object that it encrypted. In a key file the first key encrypts and all of them decrypt: that is how keys are
rotated.
"""

import base64
import binascii
import hashlib
import hmac
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from membridge.errors import EncryptionKeyError
from membridge.system import files

#: Bytes of a key, of its id and of the salt for a passphrase.
KEY, ID, SALT = 32, 8, 16
#: The salt of a key that is not from a passphrase.
NO_SALT = bytes(SALT)
#: Argon2id's passes and memory in bytes, the second option of RFC 9106; fixed, so that no store can ask for less.
PASSES, MEMORY = 3, 64 << 20
#: Salts for which one process derives a key: a store full of invented ones must not keep it busy.
MOST_SALTS = 8
#: Largest key file, in bytes.
MAX_FILE = 16 << 10

#: The remedy for a missing key.
COPY_KEY = (
    "copy the key file of a node that reads this store and set MEMBRIDGE_ENCRYPTION_KEY_FILE, "
    "or set its MEMBRIDGE_ENCRYPTION_PASSPHRASE"
)


@dataclass(frozen=True, slots=True, repr=False)
class Key:
    """A key; `salt` if it was derived from a passphrase. Only its id is ever printed."""

    secret: bytes
    salt: bytes = NO_SALT

    @property
    def id(self) -> str:
        """The key's name: 16 hex digits."""
        return derived(self.secret, salt=b"", info=b"membridge key id")[:ID].hex()

    def __repr__(self) -> str:
        return f"Key({self.id})"


class KeySource:
    """This node's keys: a key file, a passphrase, or both; then the file's key encrypts and the passphrase decrypts.

    Called from threads. The file is read each time, so that a rotation needs no restart; `stamp` cheaply shows whether
    it changed.
    """

    def __init__(self, *, file: Path | None = None, passphrase: str | None = None) -> None:
        self._file, self._passphrase = file, passphrase
        self._made: dict[bytes, Key] = {}

    def load(self, salt: bytes) -> tuple[Key, ...]:
        """Return the keys, the one that encrypts first; `salt` is the store's. Raises EncryptionKeyError."""
        keys = read_file(self._file) if self._file else ()
        made = self.from_passphrase(salt)
        return (*keys, made) if made else keys

    def stamp(self) -> tuple[int, ...]:
        """Return a value that changes with the key file; empty without a file."""
        try:
            found = self._file.stat() if self._file else None
        except OSError:
            return ()
        return (found.st_ino, found.st_mtime_ns, found.st_size, found.st_mode) if found else ()

    def from_passphrase(self, salt: bytes) -> Key | None:
        """Return the passphrase's key under `salt`; None without a passphrase, or after too many salts."""
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
    """Return the keys in `path`; EncryptionKeyError if it has none, others may read it, or a line is not a key."""
    try:
        with path.open("rb") as file:
            mode, text = os.fstat(file.fileno()).st_mode, file.read(MAX_FILE + 1)
    except OSError as error:
        raise files.meaning(error, path, otherwise=EncryptionKeyError, remedy=COPY_KEY) from error
    if files.open_to_others(mode):
        raise EncryptionKeyError(f"other users have access to the key file {path}", remedy=f"run `chmod 600 {path}`")
    lines = text.decode("utf-8", "replace").splitlines() if len(text) <= MAX_FILE else [""]
    keys = [_parsed(path, number, line) for number, line in enumerate(lines, 1) if line.strip() and line[0] != "#"]
    if not keys:
        raise EncryptionKeyError(f"the key file {path} holds no key", remedy="copy the file again from another node")
    return tuple(keys)


def key_text(keys: Sequence[Key]) -> str:
    """Return the text of a key file."""
    lines = ["# Membridge: the first key encrypts, all of them decrypt. Keep a copy outside of the object store."]
    lines += [f"{key.id} {base64.b64encode(key.secret).decode()}" for key in keys]
    return "\n".join([*lines, ""])


def write_file(path: Path, keys: Sequence[Key]) -> None:
    """Write a key file for its owner only; after a power cut either the old or the new one is there."""
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
    import nacl.bindings as sodium  # noqa: PLC0415 - loaded only where something is encrypted

    algorithm = sodium.crypto_pwhash_ALG_ARGON2ID13
    return sodium.crypto_pwhash_alg(KEY, passphrase, salt, PASSES, MEMORY, algorithm)
