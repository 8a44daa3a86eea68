"""Join a memory by invitation: verify the server, make keys, enrol, and write the settings to reach everything.

Keys are on the disk before they are sent, so the same line again finishes a join that was interrupted anywhere. Nothing
secret is sent before the server's fingerprint is verified.
"""

from dataclasses import dataclass
from pathlib import Path

from membridge import __version__
from membridge.access import join_config, pinning
from membridge.access.invitation import Line
from membridge.access.join_config import JoinConfig, Value
from membridge.access.nkeys import provide_key
from membridge.aio import threads
from membridge.aio.deadline import Deadline
from membridge.bus.connection import connect
from membridge.bus.options import BusOptions
from membridge.bus.rpc import RpcClient
from membridge.errors import BusUnavailableError, MembridgeError
from membridge.settings import RUNTIME
from membridge.system import files
from membridge.wiring.nats_permissions import INBOX
from schemas import subjects
from schemas.access import EnrolRequest, StoreConfig
from schemas.identity import NodeId, ProjectId, canonical_id
from schemas.node import Empty

#: Seconds to find a server of the invitation, to enrol, and until the new key works.
FIND, ENTER, ACCEPTED = 10.0, 60.0, 15.0
#: The enrolment user, as the server names it.
DOOR = "door"
#: The file of the keys that encrypt the store's objects.
SEALING = "sealing.keys"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a join writes on this machine, and its node name. `database` is that of the first project."""

    folder: Path
    node: NodeId
    database: Path


@dataclass(frozen=True, slots=True)
class Joined:
    """The result of a join: the node, its projects by name, and the file that was written."""

    node: NodeId
    projects: tuple[str, ...]
    url: str
    file: Path


async def join(line: Line, place: Place) -> Joined:
    """Enrol this machine and write its configuration.

    Errors: CredentialsError for another server than the invitation's, BusUnavailableError, RemoteError with the
    reason of a refusal, DiskFullError. Before the last step it writes only keys.
    """
    keys = place.folder / "keys" / line.id
    projects = {canonical_id(name): name for name in line.projects}
    url, authority = await _find(line)
    ca_file, enrolment_seed = keys / "authority.pem", keys / f"{DOOR}.seed"
    await threads.run(files.save, ca_file, authority.encode())
    await threads.run(files.save, enrolment_seed, f"{line.door}\n".encode())
    public = {project: await threads.run(provide_key, _seed(keys, project)) for project in projects}
    request = EnrolRequest(
        invitation=line.id,
        secret=line.secret,
        node=place.node,
        keys=public,
        runtime_key=await threads.run(provide_key, keys / f"{RUNTIME}.seed"),
        version=__version__,
    )
    options = BusOptions(
        urls=(url,),
        name=f"membridge-join-{place.node}",
        nkey_seed=enrolment_seed,
        ca_file=ca_file,
        inbox_prefix=f"{INBOX}.{DOOR}",
        jetstream=False,
    )
    async with connect(options, deadline=Deadline.after(FIND)) as bus:
        await RpcClient(bus).request(subjects.ENROL, request, deadline=Deadline.after(ENTER))
    await threads.run(enrolment_seed.unlink, missing_ok=True)
    store = await _store(url, ca_file, keys, place.node, next(iter(projects)))
    config = await threads.run(_config_of, line, place, url, keys, projects, store)
    file = await threads.run(join_config.save, place.folder, config)
    return Joined(place.node, tuple(line.projects), url, file)


async def _find(line: Line) -> tuple[str, str]:
    """Return the first address of the invitation that answers, and its authority."""
    failures: list[MembridgeError] = []
    for url in line.urls:
        try:
            pem = await threads.run(
                pinning.fetch_authority, url, line.fingerprint, deadline=Deadline.after(FIND / len(line.urls))
            )
        except BusUnavailableError as error:
            failures.append(error)
            continue
        return url, pem
    raise failures[0]


async def _store(url: str, ca_file: Path, keys: Path, node: NodeId, project: ProjectId) -> StoreConfig:
    options = BusOptions(
        urls=(url,),
        name=f"membridge-join-{node}",
        nkey_seed=_seed(keys, project),
        ca_file=ca_file,
        inbox_prefix=f"{INBOX}.{node}",
    )
    async with connect(options, deadline=Deadline.after(ACCEPTED)) as bus:
        return await RpcClient(bus).request(
            subjects.STORE_CONFIG, Empty(), deadline=Deadline.after(ACCEPTED), project=project
        )


def _config_of(
    line: Line, place: Place, url: str, keys: Path, projects: dict[ProjectId, str], store: StoreConfig
) -> JoinConfig:
    others = [other for other in line.urls if other != url]
    stored: dict[str, Value] = {"kind": store.kind}
    for name in ("endpoint", "access_key", "secret_key", "bucket", "region"):
        value: str | None = getattr(store, name)
        if value is not None:
            stored[name] = value
    if store.ca:
        files.save(keys / "store.pem", store.ca.encode())
        stored["ca_file"] = str(keys / "store.pem")
    if store.sealing_keys:
        files.save(keys / SEALING, store.sealing_keys.encode())
        stored["encryption_key_file"] = str(keys / SEALING)
    if store.passphrase:
        stored["encryption_passphrase"] = store.passphrase
    (_, first), *rest = projects.items()
    settings: dict[str, dict[str, Value]] = {
        "node": {"id": place.node},
        "project": {"name": first, "database": str(place.database)},
        "nats": {"urls": [url, *others], "ca_file": str(keys / "authority.pem"), "keys_dir": str(keys)},
        "store": stored,
    }
    return JoinConfig(settings, [(name, _beside(place.database, project)) for project, name in rest])


def _beside(database: Path, project: ProjectId) -> Path:
    """Return where the database of a further project is kept: beside the first one's."""
    return database.with_name(f"{database.stem}-{project}{database.suffix}")


def _seed(keys: Path, project: ProjectId) -> Path:
    return keys / f"{project}.seed"
