"""The certificates of a server for other machines: of an own authority, or given by the operator.

Machines trust the authority by its fingerprint, which is in the invitation, so the server's certificate can be made
anew at any time. Only the owner can read the private keys, and they never leave the folder.
"""

import hashlib
import ipaddress
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from membridge.errors import CredentialsError
from membridge.system import clock, files

#: How long authority and certificate are valid; a certificate with less than that left is renewed at a start.
LIFE, RENEW_BEFORE = timedelta(days=3650), timedelta(days=365)
#: They are valid from before now: boards without a battery have slow clocks.
EARLIER = timedelta(days=2)
_PEM = serialization.Encoding.PEM
_GIVEN = "set MEMBRIDGE_TLS_CERT_FILE and MEMBRIDGE_TLS_CA_FILE to certificates in PEM form"
_NAMES = "get one with this machine's name or address as subject alternative name"
_ANEW = "restore it from a backup, or delete its folder: then every machine has to be invited anew"


@dataclass(frozen=True, slots=True)
class ServerCertificate:
    """PEM files: the authority; the server's certificate followed by the authority; the server's key."""

    authority: Path
    chain: Path
    key: Path

    def fingerprint(self) -> str:
        """Return the sha256 of the authority's certificate, 64 hex digits."""
        certificate = x509.load_pem_x509_certificate(_read(self.authority))
        return hashlib.sha256(certificate.public_bytes(serialization.Encoding.DER)).hexdigest()


def provide(folder: Path, hosts: Iterable[str]) -> ServerCertificate:
    """Return the certificates in `folder`, made anew if missing, about to expire or without one of `hosts`.

    Blocking. Raises CredentialsError for damaged files.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    found = ServerCertificate(folder / "authority.pem", folder / "server.pem", folder / "server.key")
    authority_key = folder / "authority.key"
    if not found.authority.is_file() or not authority_key.is_file():
        key = ec.generate_private_key(ec.SECP256R1())
        _save_key(authority_key, key)
        files.save(found.authority, _authority(key).public_bytes(_PEM))
        found.chain.unlink(missing_ok=True)
    wanted = sorted(set(hosts))
    if not found.chain.is_file() or not found.key.is_file() or not _serves(found.chain, wanted):
        authority = _certificate(found.authority, remedy=_ANEW)
        signer = _private_key(authority_key)
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _server(key.public_key(), wanted, authority, signer)
        # The old pair must not be half replaced: a server finds either both or, with no chain, makes them again.
        found.chain.unlink(missing_ok=True)
        _save_key(found.key, key)
        files.save(found.chain, certificate.public_bytes(_PEM) + authority.public_bytes(_PEM))
    return found


@dataclass(frozen=True, slots=True)
class Given:
    """The operator's own files: a certificate, its private key, and the authority that signed it."""

    certificate: Path
    key: Path
    authority: Path


def take(folder: Path, given: Given) -> tuple[ServerCertificate, tuple[str, ...]]:
    """Return a given certificate as the server shows it, and its names and addresses.

    The server shows the authority too, because a joining machine looks for it. Blocking. Raises CredentialsError for
    files that cannot be read, do not belong together, have expired or name no host.
    """
    authority, certificate = _certificate(given.authority), _certificate(given.certificate)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(given.certificate, given.key, password="")
    except (ssl.SSLError, OSError) as error:
        raise CredentialsError(
            f"the private key {given.key} does not belong to the certificate {given.certificate}, or has a password",
            remedy="set MEMBRIDGE_TLS_KEY_FILE to that certificate's key, without a password",
        ) from error
    if certificate.not_valid_after_utc <= clock.now():
        raise CredentialsError(
            f"the certificate {given.certificate} expired on {certificate.not_valid_after_utc:%Y-%m-%d}",
            remedy="renew it, then start `membridge up` again",
        )
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound as error:
        raise CredentialsError(f"the certificate {given.certificate} names no host", remedy=_NAMES) from error
    hosts = [str(found) for kind in (x509.DNSName, x509.IPAddress) for found in names.get_values_for_type(kind)]
    hosts = [host for host in hosts if "*" not in host]
    if not hosts:
        raise CredentialsError(f"the certificate {given.certificate} names no host without `*`", remedy=_NAMES)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    shown = ServerCertificate(given.authority, folder / "given.pem", given.key)
    files.save(shown.chain, _read(given.certificate).rstrip() + b"\n" + authority.public_bytes(_PEM))
    return shown, tuple(hosts)


def _authority(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Membridge authority")])
    now = clock.now()
    return (
        _builder(name, name, key.public_key(), now)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def _server(
    key: ec.EllipticCurvePublicKey, hosts: list[str], authority: x509.Certificate, signer: ec.EllipticCurvePrivateKey
) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Membridge server")])
    identifier = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return (
        _builder(name, authority.subject, key, clock.now())
        .add_extension(x509.SubjectAlternativeName([_general_name(host) for host in hosts]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs=False), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
        )
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
        .sign(signer, hashes.SHA256())
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - EARLIER)
        .not_valid_after(now + LIFE)
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _serves(chain: Path, hosts: list[str]) -> bool:
    certificate = _certificate(chain, remedy="delete it: the next start makes a new one")
    if certificate.not_valid_after_utc - clock.now() < RENEW_BEFORE:
        return False
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return all(_general_name(host) in names for host in hosts)


def _save_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    body = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    files.save(path, body)


def _certificate(path: Path, *, remedy: str = _GIVEN) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(_read(path))
    except ValueError as error:
        raise CredentialsError(f"{path} is not a certificate in PEM form", remedy=remedy) from error


def _private_key(path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(_read(path), password=None)
    except (ValueError, TypeError) as error:
        raise CredentialsError(f"the authority's private key {path} is damaged", remedy=_ANEW) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise CredentialsError(f"{path} is not the authority's private key, which is an EC key", remedy=_ANEW)
    return key


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise files.meaning(error, path, otherwise=CredentialsError) from error
