"""Answers the question of a server who connects: with a public key and a signature, or with a JWT and a signature.

nats-py would load the package `nkeys` for it, which exists as source only. This module does the same with PyNaCl.
"""

from pathlib import Path

from nats.aio.client import Client

from membridge.bus import nkeys
from membridge.bus.errors import KeyFileError
from membridge.bus.nkeys import UserKey


class SignIn:
    """The user of a connection, from a credentials file or a seed file.

    Each connection reads the file anew: a renewed JWT needs no restart.
    """

    def __init__(self, *, credentials: Path | None = None, seed: Path | None = None) -> None:
        self._credentials, self._seed = credentials, seed

    def apply(self, client: Client) -> None:
        """Let `client`, not connected yet, sign in. Raises KeyFileError."""
        if self._credentials is None and self._seed is None:
            return
        # nats-py sets these only after it imported `nkeys`: it asks the first whether to send anything at all.
        client._auth_configured = True  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
        if self._credentials is None:
            client._public_nkey = self._read()[1].public  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]

    def jwt(self) -> bytes:
        """Return the JWT of the credentials file."""
        return self._read()[0]

    def sign(self, nonce: str) -> bytes:
        """Return the signature of the server's `nonce`."""
        return self._read()[1].sign(nonce.encode())

    def callbacks(self) -> dict[str, object]:
        """Return what nats-py's `connect` calls for each connection."""
        if self._credentials is not None:
            return {"user_jwt_cb": self.jwt, "signature_cb": self.sign}
        return {"signature_cb": self.sign} if self._seed is not None else {}

    def _read(self) -> tuple[bytes, UserKey]:
        file = self._credentials or self._seed
        try:
            if self._credentials is not None:
                return nkeys.of_credentials(self._credentials.read_bytes())
            if self._seed is not None:
                return b"", nkeys.from_seed(self._seed.read_bytes())
        except ValueError as error:
            raise KeyFileError(f"{file} is damaged: {error}") from error
        except OSError as error:
            raise KeyFileError(f"{file} cannot be read: {error.strerror}") from error
        raise KeyFileError("neither a credentials file nor a seed is configured")
