"""The access folder of the machine that runs the server: keys, certificates, membership, and the server's own files.

Only its owner can read it. The configuration and the server's certificate are derived: if deleted, they are made again.
The membership, the authority and the keys are not.
"""

import socket
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from membridge.access import certificates
from membridge.access import members as rules
from membridge.access.certificates import Given
from membridge.access.enrolment import EnrolmentAddress
from membridge.access.members import Membership
from membridge.access.nkeys import provide_key, read_seed
from membridge.access.server_config import OwnKeys, render
from membridge.bus.options import BusOptions
from membridge.embedded.nats_server import bundled_config
from membridge.settings import RUNTIME, NatsSettings
from membridge.settings.kinds import address_and_port
from membridge.system import files
from membridge.wiring.bus import project_key
from membridge.wiring.nats_permissions import INBOX
from membridge.wiring.service import Service, installed
from schemas.identity import NodeId, ProjectId

#: An address of the documentation range; asking the system for the route there sends nothing.
_ELSEWHERE = ("192.0.2.1", 9)
ANY = frozenset({"0.0.0.0", "::", ""})  # noqa: S104 - compared with, not listened on


@dataclass(frozen=True, slots=True)
class Listening:
    """Where the server listens: the address to bind, its port, and the names that others reach it by."""

    address: str
    port: int
    hosts: tuple[str, ...]
    #: The name or address that this machine itself uses.
    own_host: str

    @classmethod
    def of(cls, listen: str) -> "Listening":
        """Return what `ADDRESS:PORT` means on this machine."""
        address, port = address_and_port(listen)
        if address in ANY:
            return cls(address, port, own_hosts(), "127.0.0.1")
        return cls(address, port, (address,), address)

    @property
    def urls(self) -> tuple[str, ...]:
        """The server's addresses for other machines."""
        return tuple(self._url(host) for host in self.hosts)

    @property
    def local_url(self) -> str:
        """The server's address for this machine."""
        return self._url(self.own_host)

    def only(self, hosts: tuple[str, ...]) -> "Listening":
        """Return the same with the names and addresses of a given certificate."""
        return replace(self, hosts=hosts, own_host=self.own_host if self.own_host in hosts else hosts[0])

    def _url(self, host: str) -> str:
        return f"tls://[{host}]:{self.port}" if ":" in host else f"tls://{host}:{self.port}"


class ServerFiles:
    """The folder. Blocking throughout."""

    def __init__(self, folder: Path, listening: Listening, given: Given | None = None) -> None:
        self.folder, self.listening = folder, listening
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if given is None:
            self.certificate = certificates.provide(folder / "tls", {*listening.hosts, "127.0.0.1", "::1", "localhost"})
        else:
            self.certificate, hosts = certificates.take(folder / "tls", given)
            self.listening = listening.only(hosts)

    @property
    def config(self) -> Path:
        """The server's configuration file."""
        return self.folder / "nats-server.conf"

    @property
    def keys(self) -> Path:
        """The folder of this machine's own keys, one for each project."""
        return self.folder / "keys"

    def membership(self) -> Membership:
        """Return the saved membership, an empty one at the first start."""
        path = self.folder / "roster.json"
        return rules.read(path.read_bytes()) if path.is_file() else Membership()

    def enrolment_address(self) -> EnrolmentAddress:
        """Return what invitations contain about this server."""
        return EnrolmentAddress(self.listening.urls, self.certificate.fingerprint(), read_seed(self.seed("door")))

    def seed(self, role: str) -> Path:
        """Return the file of the seed of one of the server's own users."""
        return self.folder / "users" / f"{role}.seed"

    def operator_of(self, project: ProjectId) -> Path:
        """Return the file of the operator's seed for a project's account."""
        return self.seed(f"operator-{project}")

    def users(self, projects: Iterable[ProjectId], services: Iterable[Service]) -> OwnKeys:
        """Return the public keys of the server's own users, made where there are none."""
        projects, services = list(projects), list(services)
        asking = [service.name for service in services if service.in_projects]
        return OwnKeys(
            operator_service=provide_key(self.seed("desk")),
            caller=provide_key(self.seed("caller")),
            enrolment_service=provide_key(self.seed("doorkeeper")),
            enrolment_user=provide_key(self.seed("door")),
            operators={project: provide_key(self.operator_of(project)) for project in projects},
            runtime_operator=provide_key(self.seed(f"operator-{RUNTIME}")),
            services={service.name: provide_key(self.keys / f"{service.name}.seed") for service in services},
            in_projects={
                project: {name: provide_key(project_key(self.keys, name, project)) for name in asking}
                for project in projects
            },
        )

    def own_keys(self, projects: Iterable[ProjectId]) -> dict[ProjectId, str]:
        """Return this machine's public key for each project, made where there is none."""
        return {project: provide_key(self.keys / f"{project}.seed") for project in projects}

    def own_runtime_key(self) -> str:
        """Return this machine's public key for the task runtime, made where there is none."""
        return provide_key(self.keys / f"{RUNTIME}.seed")

    def options(self, seed: Path, name: str, *, inbox: str, jetstream: bool = True) -> BusOptions:
        """Return how this machine connects as the user of `seed`."""
        return BusOptions(
            urls=(self.listening.local_url,),
            name=name,
            nkey_seed=seed,
            ca_file=self.certificate.authority,
            inbox_prefix=f"{INBOX}.{inbox}" if inbox else INBOX,
            jetstream=jetstream,
        )

    def write_config(self, membership: Membership) -> None:
        """Write the server's configuration: the bundled one, TLS, and the accounts of a membership."""
        services = installed()
        accounts = render(membership, self.users(membership.projects, services), services)
        files.save(self.folder / "accounts.conf", accounts.encode())
        tls = f'tls {{ cert_file: "{self.certificate.chain}", key_file: "{self.certificate.key}", timeout: 5 }}\n'
        base = bundled_config().read_text("utf-8")
        files.save(self.config, f'{base}\n{tls}include "./accounts.conf"\n'.encode())


def given_in(nats: NatsSettings) -> Given | None:
    """Return the certificate that the settings name, None if they name none and one is made."""
    certificate, key, authority = nats.certificate_file, nats.certificate_key_file, nats.certificate_authority_file
    return Given(certificate, key, authority) if certificate and key and authority else None


def own_hosts() -> tuple[str, ...]:
    """Return this machine's names and addresses for others, the preferred one first."""
    found: list[str] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, suppress(OSError):  # no network now
        probe.connect(_ELSEWHERE)
        found.append(str(probe.getsockname()[0]))
    name = socket.gethostname()
    with suppress(OSError):  # the name is in no list
        found += socket.gethostbyname_ex(name)[2]
    found = [host for host in found if not host.startswith("127.")]
    return tuple(dict.fromkeys([*found, name]))


def own_member(
    server_files: ServerFiles, membership: Membership, node: NodeId, names: list[str], *, now: str
) -> Membership:
    """Return the membership with this machine and its projects added."""
    grown = rules.add_projects(membership, names)
    return rules.host(grown, node, server_files.own_keys(list(grown.projects)), server_files.own_runtime_key(), now=now)
