"""Join a memory by invitation: know the server, make keys here, ask in, and write down how to reach everything.

Keys are on the disk before they are asked in with, so that a join that was cut off anywhere is finished by the same
line again. Nothing secret is sent before the server was known by its fingerprint.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from membridge import __version__, blocking
from membridge.access import pinning
from membridge.access.invitation import Line
from membridge.access.keys import provide_key
from membridge.bus.client import Client
from membridge.bus.connection import connect
from membridge.bus.options import BusOptions
from membridge.deadline import Deadline
from membridge.errors import BusUnavailableError, MembridgeError
from membridge.settings import ENROLLED
from membridge.snapshot import files
from schemas import subjects
from schemas.access import EnrolRequest, StoreConfig
from schemas.identity import NodeId, ProjectId, canonical_id
from schemas.node import Empty

#: Seconds to find a server of the invitation, to be let in, and until the new key works.
FIND, ENTER, ACCEPTED = 10.0, 60.0, 15.0
DOOR = "door"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a join writes on this machine, and as whom it comes. `database` is that of the first project."""

    folder: Path
    node: NodeId
    database: Path


@dataclass(frozen=True, slots=True)
class Joined:
    """What a join came to: the node, its projects by name, and the file that was written."""

    node: NodeId
    projects: tuple[str, ...]
    url: str
    file: Path


async def join(line: Line, place: Place) -> Joined:
    """Enrol this machine and write its configuration.

    Errors: CredentialsError for another server than the invitation's, BusUnavailableError, RemoteError with the
    reason of a refusal, DiskFullError. Until the last step nothing but keys was written.
    """
    keys = place.folder / "keys" / line.id
    projects = {canonical_id(name): name for name in line.projects}
    url, authority = await _find(line)
    ca_file, door = keys / "authority.pem", keys / f"{DOOR}.seed"
    await blocking.run(files.save, ca_file, authority.encode())
    await blocking.run(files.save, door, f"{line.door}\n".encode())
    public = {project: await blocking.run(provide_key, _seed(keys, project)) for project in projects}
    request = EnrolRequest(invitation=line.id, secret=line.secret, node=place.node, keys=public, version=__version__)
    options = BusOptions(
        urls=(url,),
        name=f"membridge-join-{place.node}",
        nkey_seed=door,
        ca_file=ca_file,
        inbox_prefix=f"_INBOX_{DOOR}",
        jetstream=False,
    )
    async with connect(options, deadline=Deadline.after(FIND)) as bus:
        await Client(bus).request(subjects.ENROL, request, deadline=Deadline.after(ENTER))
    await blocking.run(door.unlink, missing_ok=True)
    store = await _store(url, ca_file, keys, place.node, next(iter(projects)))
    text = _configuration(line, place, url, keys, projects, store)
    await blocking.run(files.save, place.folder / ENROLLED, text.encode())
    return Joined(place.node, tuple(line.projects), url, place.folder / ENROLLED)


async def _find(line: Line) -> tuple[str, str]:
    """Return the first address of the invitation that answers, and its authority."""
    failures: list[MembridgeError] = []
    for url in line.urls:
        try:
            pem = await blocking.run(
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
        inbox_prefix=f"_INBOX_{node}",
    )
    async with connect(options, deadline=Deadline.after(ACCEPTED)) as bus:
        return await Client(bus).request(
            subjects.STORE_CONFIG, Empty(), deadline=Deadline.after(ACCEPTED), project=project
        )


def _configuration(
    line: Line, place: Place, url: str, keys: Path, projects: dict[ProjectId, str], store: StoreConfig
) -> str:
    """Return the configuration file as TOML; a JSON string is a TOML string too."""
    others = [other for other in line.urls if other != url]
    values: dict[str, dict[str, object]] = {
        "node": {"id": place.node},
        "nats": {"urls": [url, *others], "ca_file": str(keys / "authority.pem"), "keys_dir": str(keys)},
        "store": {"kind": store.kind},
    }
    for field in ("endpoint", "access_key", "secret_key", "bucket", "region"):
        value = getattr(store, field)
        if value is not None:
            values["store"][field] = value
    if store.ca:
        store_ca = keys / "store.pem"
        files.save(store_ca, store.ca.encode())
        values["store"]["ca_file"] = str(store_ca)
    first, *rest = projects.items()
    values["project"] = {"name": first[1], "database": str(place.database)}
    lines = ["# Written by `membridge join`; what you set in config.toml goes before it."]
    for group, fields in values.items():
        lines += ["", f"[{group}]", *(f"{name} = {json.dumps(value)}" for name, value in fields.items())]
    for project, name in rest:
        database = place.database.with_name(f"{place.database.stem}-{project}{place.database.suffix}")
        lines += ["", "[[projects]]", f"name = {json.dumps(name)}", f"database = {json.dumps(str(database))}"]
    return "\n".join([*lines, ""])


def _seed(keys: Path, project: ProjectId) -> Path:
    return keys / f"{project}.seed"
