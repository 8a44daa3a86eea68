"""A server with a certificate that somebody else made: machines join by its authority; misfits are one line."""

import ipaddress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from membridge.access import invitation
from membridge.testing.node_process import NodeProcess
from tests.fixtures.ports import free_port
from tests.integration.access.sites import SHARED, site

PEM = serialization.Encoding.PEM


def files(folder: Path, *names: x509.GeneralName, days: int = 30) -> dict[str, str]:
    """Make an authority and a certificate for `names`, with RSA keys; return the settings that name them."""
    folder.mkdir()
    keys = [rsa.generate_private_key(public_exponent=65_537, key_size=2048) for _ in range(2)]
    authority = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "An authority of the house")])
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "hub")])
    began = datetime.now(UTC) - timedelta(days=60)

    def certificate(name: x509.Name, key: rsa.RSAPrivateKey, extension: x509.ExtensionType) -> bytes:
        made = x509.CertificateBuilder().subject_name(name).issuer_name(authority).public_key(key.public_key())
        made = made.serial_number(x509.random_serial_number()).not_valid_before(began)
        made = made.not_valid_after(datetime.now(UTC) + timedelta(days=days)).add_extension(extension, critical=False)
        return made.sign(keys[0], hashes.SHA256()).public_bytes(PEM)

    said = {
        "MEMBRIDGE_TLS_CA_FILE": certificate(authority, keys[0], x509.BasicConstraints(ca=True, path_length=None)),
        "MEMBRIDGE_TLS_CERT_FILE": certificate(subject, keys[1], x509.SubjectAlternativeName(names)),
        "MEMBRIDGE_TLS_KEY_FILE": keys[1].private_bytes(
            PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
    }
    for name, body in said.items():
        (folder / name).write_bytes(body)
        (folder / name).chmod(0o600)
    return {name: str(folder / name) for name in said}


def same_certificate(one: Path, other: Path) -> bool:
    first, second = (x509.load_pem_x509_certificate(file.read_bytes()) for file in (one, other))
    return first == second


@pytest.mark.parametrize("by_name", [True, False])
async def test_machines_join_by_its_authority(tmp_path: Path, by_name: bool) -> None:
    name = x509.DNSName("localhost") if by_name else x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    async with site(tmp_path, **files(tmp_path / "given", name)) as place:
        line = await place.invite("--node", "b")
        port = place.host.extra["MEMBRIDGE_NATS_LISTEN"].rpartition(":")[2]
        assert invitation.parse(line).urls == [f"tls://{'localhost' if by_name else '127.0.0.1'}:{port}"]
        b = place.machine("b")
        code, output = await b.command("join", line, "--once")
        assert code == 0, output
        told = next((b.home / ".config" / "membridge" / "keys").rglob("authority.pem"))
        given = Path(place.host.extra["MEMBRIDGE_TLS_CA_FILE"])
        assert same_certificate(told, given)
        code, output = await b.command("status")
        assert code == 0, output


@pytest.mark.parametrize(
    ("wrong", "says"),
    [("key", "does not belong to"), ("ended", "expired on"), ("nobody", "names no host"), ("half", "or none of them")],
)
async def test_what_does_not_fit_is_said_in_one_line(tmp_path: Path, wrong: str, says: str) -> None:
    name = x509.DNSName("*.example.org" if wrong == "nobody" else "localhost")
    given = files(tmp_path / "given", name, days=-1 if wrong == "ended" else 30)
    if wrong == "key":
        given["MEMBRIDGE_TLS_KEY_FILE"] = files(tmp_path / "other", name)["MEMBRIDGE_TLS_KEY_FILE"]
    if wrong == "half":
        del given["MEMBRIDGE_TLS_CA_FILE"]
    listen = {"MEMBRIDGE_NATS_LISTEN": f"127.0.0.1:{free_port()}"}
    code, output = await NodeProcess("a", tmp_path / "a", "", SHARED, extra={**listen, **given}).command("up")
    assert (code, says in output, "Traceback" in output) == (1, True, False), output
