"""The state that every try of a scenario begins with: made once by the product itself, then copied under new ids."""

import json
import re
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from membridge.commits import layout
from membridge.objectstore.jetstream import JetStreamStore
from schemas.identity import ProjectId
from schemas.snapshot import Head, SnapshotObject, SnapshotRecord
from schemas.wire import WireError, decode, encode
from tests.faults.world import World, soon

#: What retention may delete without asking when no commit record names it.
SNAPSHOT = re.compile(r"projects/[0-9a-f]{16}/snapshots/[0-9]{12}-[0-9a-f]{16}\.(full|delta|after-[0-9]+)\.zst")


def fresh_project() -> ProjectId:
    """Return an id that nobody has used."""
    return ProjectId(secrets.token_hex(8))


@dataclass(frozen=True, slots=True)
class Template:
    """Homes in `folder`, and what stores hold of `project`."""

    folder: Path
    project: ProjectId
    objects: dict[str, bytes]
    head: Head | None

    async def copy_to(self, world: World, folder: Path, project: ProjectId) -> None:
        """Make `folder` and `project` what this template is."""
        shutil.copytree(self.folder, folder)
        for key, body in self.objects.items():
            is_record = layout.seq_of_commit(key) is not None
            moved = encode(_moved(decode(body, SnapshotRecord), project)) if is_record else body
            await world.store.put(key.replace(self.project, project), moved, deadline=soon())
        if self.head is not None:
            head = Head(record=_moved(self.head.record, project))
            await world.heads.create(project, head, deadline=soon())


async def taken(world: World, folder: Path, project: ProjectId) -> Template:
    """Return what lies in `folder` and in the stores as a template."""
    objects = await stored(world, project)
    entry = await world.heads.get(project, deadline=soon())
    return Template(folder, project, objects, entry.value if entry else None)


async def stored(world: World, project: ProjectId) -> dict[str, bytes]:
    """Return a project's objects."""
    keys = [info.key async for info in world.store.list(f"projects/{project}/", deadline=soon())]
    return {key: await world.store.get(key, deadline=soon()) for key in keys}


async def removed(world: World, project: ProjectId) -> None:
    """Take a project out of the stores, so that the next listing is short."""
    keys = [info.key async for info in world.store.list(f"projects/{project}/", deadline=soon())]
    for key in keys:
        await world.store.delete(key, deadline=soon())
    await world.heads.delete(project, deadline=soon())


async def orphans(world: World, project: ProjectId) -> list[str]:
    """Return the snapshots and rollups that no commit record names."""
    keys = [info.key async for info in world.store.list(f"projects/{project}/snapshots/", deadline=soon())]
    named = set[str]()
    async for info in world.store.list(layout.commits(project), deadline=soon()):
        try:
            record = decode(await world.store.get(info.key, deadline=soon()), SnapshotRecord)
        except WireError:
            continue
        named.update(stored.key for stored in record.objects())
    assert named <= set(keys), f"committed without its bytes: {named - set(keys)}"
    return [key for key in keys if key not in named]


async def loose_chunks(world: World) -> set[str]:
    """Return the subjects of chunks in the store in NATS whose object never came to be."""
    if world.place.s3 is not None:
        return set()
    ask = b'{"subjects_filter": "$O.membridge.C.>"}'
    reply = await world.bus.request("$JS.API.STREAM.INFO.OBJ_membridge", ask, deadline=soon())
    subjects: dict[str, int] = json.loads(reply.body)["state"].get("subjects") or {}
    assert isinstance(world.store, JetStreamStore)
    metas = [json.loads(body) async for body in world.store._read("$O.membridge.M.>", deadline=soon()) if body]
    return set(subjects) - {f"$O.membridge.C.{meta['nuid']}" for meta in metas}


#: Files that a home may hold when nothing is going on.
#: A mirror that was forgotten stays until there is another one.
_AT_REST = re.compile(
    r"claude-mem\.db(-wal|-shm)?|state/(lane\.lock|journal\.db|rows\.db(-wal|-shm)?|submitted\.json|audit\.json"
    r"|high-water\.json)|state/mirror/((position|former)\.json|[0-9a-f]{16}-[0-9a-f]{8}\.memory(-wal|-shm)?)"
    r"|state/backups/[0-9TZ.]+-[a-z]+\.(db|undo)"
)


def leftovers(home: Path) -> Iterator[str]:
    """Yield the files and folders in a home that nothing will ever use, and mirrors beyond the one."""
    mirrors = 0
    for path in sorted(home.rglob("*")):
        name = str(path.relative_to(home))
        if path.is_dir() and name in {"state", "state/mirror", "state/backups"}:
            continue
        if not _AT_REST.fullmatch(name):
            yield name
        mirrors += path.parent.name == "mirror" and path.suffix == ".memory"
    if mirrors > 1:
        yield f"{mirrors} mirrors"


def _moved(record: SnapshotRecord, project: ProjectId) -> SnapshotRecord:
    def moved(stored: SnapshotObject) -> SnapshotObject:
        return msgspec.structs.replace(stored, key=stored.key.replace(record.project, project))

    return msgspec.structs.replace(
        record,
        project=project,
        object=moved(record.object) if record.object else None,
        rollups=[msgspec.structs.replace(one, object=moved(one.object)) for one in record.rollups],
    )
