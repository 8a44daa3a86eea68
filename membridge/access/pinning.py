"""Verify a server by the fingerprint of its authority before sending it anything.

The certificates that a server shows are trusted only if the authority among them has the fingerprint in the invitation.
Later connections verify the server against that authority in the ordinary way.
"""

import hashlib
import hmac
import socket
import ssl
from typing import Protocol, cast
from urllib.parse import urlsplit

from membridge.aio.deadline import Deadline
from membridge.errors import BusUnavailableError, CredentialsError

#: Most bytes of a server's greeting that are read.
_MAX_INFO = 64 << 10


def fetch_authority(url: str, fingerprint: str, *, deadline: Deadline) -> str:
    """Return the authority's certificate as PEM text when the server at `url` shows the one with `fingerprint`.

    Blocking. Raises BusUnavailableError when no NATS server answers, CredentialsError for one with another authority.
    """
    address = urlsplit(url)
    host, port = address.hostname or "", address.port or 4222
    try:
        with socket.create_connection((host, port), timeout=deadline.remaining()) as plain:
            _read_info(plain, host, port)
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            # Nothing is verified here; trust comes from the fingerprint below.
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            with context.wrap_socket(plain, server_hostname=host) as secured:
                shown = _chain(secured)
    except ssl.SSLError as error:
        raise CredentialsError(
            f"{host}:{port} does not speak TLS: {error.reason}", remedy="check the address in the invitation"
        ) from error
    except OSError as error:
        raise BusUnavailableError(
            f"{host}:{port} cannot be reached: {error.strerror or error}",
            remedy="check that `membridge up --listen` runs there and that no firewall blocks the port",
        ) from error
    for der in shown:
        if hmac.compare_digest(hashlib.sha256(der).hexdigest(), fingerprint):
            return ssl.DER_cert_to_PEM_cert(der)
    raise CredentialsError(
        f"the server at {host}:{port} did not make this invitation: it has another certificate authority",
        remedy="check the address and ask for a new invitation; do not join if you did not expect this",
    )


def _read_info(plain: socket.socket, host: str, port: int) -> None:
    """Read the greeting that NATS sends before TLS begins."""
    greeting = b""
    while not greeting.endswith(b"\r\n"):
        piece = plain.recv(1)
        if not piece or len(greeting) > _MAX_INFO:
            raise _not_nats(host, port)
        greeting += piece
        if not b"INFO ".startswith(greeting[:5]):
            raise _not_nats(host, port)


def _not_nats(host: str, port: int) -> BusUnavailableError:
    return BusUnavailableError(
        f"the program at {host}:{port} is not a NATS server", remedy="check the address in the invitation"
    )


def _chain(secured: ssl.SSLSocket) -> list[bytes]:
    # Python has a public name for this from 3.13 on.
    public = getattr(secured, "get_unverified_chain", None)
    if public is not None:
        return list(cast("list[bytes]", public()))
    inner = cast("_Inner", getattr(secured, "_sslobj"))  # noqa: B009 - private, and unknown to the checker
    return [ssl.PEM_cert_to_DER_cert(certificate.public_bytes()) for certificate in inner.get_unverified_chain() or []]


class _Shown(Protocol):
    def public_bytes(self) -> str: ...


class _Inner(Protocol):
    def get_unverified_chain(self) -> list[_Shown] | None: ...
