"""Certificates made, kept, renewed; and a server known by its authority's fingerprint."""

import re
import shutil
import socket
import ssl
import stat
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from membridge.access import certificates, pinning
from membridge.access.certificates import ServerCertificate
from membridge.aio.deadline import Deadline
from membridge.errors import BusUnavailableError, CredentialsError, MembridgeError

HOSTS = ["127.0.0.1", "board.local", "::1"]
INFO = b'INFO {"server_id":"x","tls_required":true}\r\n'


@contextmanager
def served(certificate: ServerCertificate | None, *, greeting: bytes = INFO) -> Generator[str]:
    """A server that greets as NATS does, then speaks TLS."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            plain, _ = listener.accept()
            with plain:
                plain.sendall(greeting)
                if certificate is None:
                    return
                context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
                context.load_cert_chain(certificate.chain, certificate.key)
                try:
                    with context.wrap_socket(plain, server_side=True) as secured:
                        secured.recv(1)
                except OSError:
                    return

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"tls://127.0.0.1:{listener.getsockname()[1]}"
        thread.join(10)


def test_keys_are_for_their_owner_and_the_server_verifies(tmp_path: Path) -> None:
    made = certificates.provide(tmp_path / "tls", HOSTS)
    for name in ("authority.key", "server.key"):
        assert stat.S_IMODE((tmp_path / "tls" / name).stat().st_mode) == 0o600
    with served(made) as url, socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as plain:
        assert plain.recv(len(INFO))
        context = ssl.create_default_context(cafile=made.authority)
        with context.wrap_socket(plain, server_hostname="board.local") as secured:
            assert secured.version() == "TLSv1.3"


def test_what_is_there_is_kept_and_a_new_host_renews_the_server_alone(tmp_path: Path) -> None:
    first = certificates.provide(tmp_path, HOSTS)
    fingerprint, chain = first.fingerprint(), first.chain.read_bytes()
    assert certificates.provide(tmp_path, HOSTS[:2]).chain.read_bytes() == chain
    renewed = certificates.provide(tmp_path, [*HOSTS, "10.1.2.3"])
    assert renewed.chain.read_bytes() != chain
    assert renewed.fingerprint() == fingerprint


def test_a_replacement_that_was_interrupted_is_done_again(tmp_path: Path) -> None:
    made = certificates.provide(tmp_path, HOSTS)
    made.chain.unlink()
    again = certificates.provide(tmp_path, HOSTS)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(again.chain, again.key)


@pytest.mark.parametrize("name", ["server.pem", "authority.pem", "authority.key"])
def test_damaged_files_are_named_and_the_remedy_works(tmp_path: Path, name: str) -> None:
    made = certificates.provide(tmp_path / "tls", HOSTS)
    made.chain.unlink()
    file = tmp_path / "tls" / name
    file.write_text("neither certificate nor key")
    with pytest.raises(CredentialsError, match=re.escape(str(file))) as refused:
        certificates.provide(tmp_path / "tls", HOSTS)
    if "delete its folder" in refused.value.remedy:
        shutil.rmtree(file.parent)
    else:
        assert "delete it" in refused.value.remedy
        file.unlink()
    certificates.provide(tmp_path / "tls", HOSTS)


def test_the_right_authority_is_fetched(tmp_path: Path) -> None:
    made = certificates.provide(tmp_path, HOSTS)
    with served(made) as url:
        pem = pinning.fetch_authority(url, made.fingerprint(), deadline=Deadline.after(10))
    assert pem.strip() == made.authority.read_text().strip()


def test_another_server_is_not_believed(tmp_path: Path) -> None:
    made, other = certificates.provide(tmp_path / "a", HOSTS), certificates.provide(tmp_path / "b", HOSTS)
    with served(other) as url, pytest.raises(CredentialsError, match="another certificate authority"):
        pinning.fetch_authority(url, made.fingerprint(), deadline=Deadline.after(10))


@pytest.mark.parametrize("greeting", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"INF", b""])
def test_what_is_no_nats_server_is_told(greeting: bytes) -> None:
    with served(None, greeting=greeting) as url, pytest.raises(BusUnavailableError, match="is not a NATS server"):
        pinning.fetch_authority(url, "0" * 64, deadline=Deadline.after(10))


def test_a_server_without_tls_is_told() -> None:
    with served(None) as url, pytest.raises(MembridgeError):
        pinning.fetch_authority(url, "0" * 64, deadline=Deadline.after(10))
