"""How to reach the bus: addresses and credentials, checked before anything is sent.

Nothing here opens a connection.
"""

import ssl
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from membridge.errors import CredentialsError, SettingsError
from membridge.system import files

#: Oldest server that this system is tested with: per-message TTL, markers, batched reads.
OLDEST_SERVER = (2, 14, 6)
_SCHEMES = ("nats", "tls")


@dataclass(frozen=True, slots=True)
class Pace:
    """Timings of a connection, in seconds; the defaults are for production, tests use shorter ones.

    A silent server is given up after three times `ping_every`.
    """

    connect: float = 4.0
    ping_every: float = 10.0
    retry_first: float = 0.1
    retry_most: float = 5.0


@dataclass(frozen=True, slots=True)
class BusOptions:
    """Where NATS is and how to sign in. A URL may contain user and password; they are never logged.

    `jetstream` is False for users that have no right to it. `domain` selects another JetStream than the connected
    server's, such as that of a leaf's hub. `caller`, `user@node`, is the sender of requests in logs and audits.
    `enrolled`: the key comes from an invitation.
    """

    urls: tuple[str, ...]
    name: str
    credentials: Path | None = None
    nkey_seed: Path | None = None
    ca_file: Path | None = None
    replicas: int = 1
    inbox_prefix: str = "_INBOX"
    jetstream: bool = True
    domain: str | None = None
    caller: str = ""
    enrolled: bool = False
    pace: Pace = Pace()

    def check(self) -> None:
        """Raise SettingsError or CredentialsError for mistakes that show without a server."""
        if not self.urls:
            raise SettingsError(
                "no NATS address is configured", remedy="set MEMBRIDGE_NATS_URL=nats://HOST:4222", field="nats_url"
            )
        for url in self.urls:
            if urlsplit(url).scheme not in _SCHEMES:
                raise SettingsError(
                    f"{plain_url(url)} is not a NATS address",
                    remedy="write nats://HOST:4222",
                    field="nats_url",
                )
        if self.credentials is not None or self.nkey_seed is not None:
            self._check_key()

    def _check_key(self) -> None:
        from membridge.bus import nkeys  # noqa: PLC0415 - only where a key is used

        if self.credentials is not None:
            text = _read(self.credentials, "MEMBRIDGE_NATS_CREDENTIALS_FILE")
            try:
                nkeys.of_credentials(text)
            except ValueError as error:
                raise CredentialsError(
                    f"{self.credentials} is not a NATS credentials file: {error}",
                    remedy="write it with `nsc generate creds`, or set MEMBRIDGE_NATS_CREDENTIALS_FILE to another",
                ) from error
        if self.nkey_seed is not None:
            text = _read(self.nkey_seed, "MEMBRIDGE_NATS_NKEY_SEED_FILE")
            try:
                nkeys.from_seed(text)
            except ValueError as error:
                raise CredentialsError(
                    f"{self.nkey_seed} does not hold the nkey seed of a user: {error}",
                    remedy="restore the file, or set MEMBRIDGE_NATS_NKEY_SEED_FILE to another",
                ) from error

    @property
    def api(self) -> str:
        """The subject that JetStream's API begins with."""
        return f"$JS.{self.domain}.API" if self.domain else "$JS.API"

    def tls(self) -> ssl.SSLContext | None:
        """Return a TLS context that trusts the configured authority, None without one."""
        if self.ca_file is None:
            return None
        try:
            return ssl.create_default_context(cafile=self.ca_file)
        except (OSError, ssl.SSLError) as error:
            raise CredentialsError(
                f"{self.ca_file} cannot be used as a certificate authority: {error.strerror or error}",
                remedy="set MEMBRIDGE_NATS_CA_FILE to the authority's certificate in PEM form",
            ) from error

    def where(self) -> str:
        """Return the addresses for a message, without user or password."""
        return ", ".join(plain_url(url) for url in self.urls)


def plain_url(url: str) -> str:
    """Return `url` without its user and password."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}" if parts.netloc else "the address"


def _read(path: Path, setting: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        remedy = f"restore the file, or set {setting} to another"
        raise files.meaning(error, path, otherwise=CredentialsError, remedy=remedy) from error
