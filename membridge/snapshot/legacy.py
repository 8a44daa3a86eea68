"""The layout of the tool that came before: one whole database, its sha256, a manifest.

Read when a project has no snapshot yet; written after a commit where `publish_legacy` asks for it. It is not part
of the chain: it cannot fail a commit that has happened, and nothing reads it once a head exists.
"""

from dataclasses import dataclass
from pathlib import Path

import msgspec

from membridge.aio import threads
from membridge.aio.deadline import Deadline
from membridge.claudemem import database
from membridge.commits import layout
from membridge.commits.progress import ProgressTracker
from membridge.commits.temp_dir import temp_dir
from membridge.errors import CorruptObjectError, ObjectMissingError
from membridge.merge import install
from membridge.snapshot.lane import Lane
from membridge.system import files
from schemas.snapshot import SnapshotRecord
from schemas.wire import Wire, encode

#: The device of rows that the old tool stored. Not this node's: its own rows have the same numbers, and another machine
#: may have written these.
DEVICE = "claude-mem-minio"


class LegacyManifest(Wire, frozen=True, kw_only=True):
    """What the old tool wrote beside the database; fields of ours are added at the end."""

    canonical_id: str = ""
    project: str = ""
    sha256: str = ""
    size_bytes: int = 0
    pushed_at: str = ""
    node_id: str = ""
    seq: int = 0


@dataclass(frozen=True, slots=True)
class Imported:
    """What the old layout held."""

    rows: int
    size_bytes: int


async def fetch(lane: Lane, target: Path, *, progress: ProgressTracker, deadline: Deadline) -> Imported | None:
    """Download the old layout's database to `target`, verified; return None when there is none.

    Errors: CorruptObjectError when its sha256 is not the recorded one, DatabaseInvalidError when it is no claude-mem
    database; `target` is then gone.
    """
    key = layout.legacy_database(lane.project)
    try:
        await lane.store.download(key, target, deadline=deadline, progress=progress.advance)
    except ObjectMissingError:
        return None
    try:
        expected = await _recorded_sum(lane, deadline=deadline)
        return await threads.run(_verified, key, target, expected, deadline)
    except BaseException:
        await threads.run(target.unlink, missing_ok=True)
        raise


def _verified(key: str, target: Path, expected: str | None, deadline: Deadline) -> Imported:
    if expected is not None and files.sha256_of(target) != expected:
        raise CorruptObjectError(
            f"object {key} is damaged: its sha256 is not the recorded one",
            remedy="upload it again with the older tool, or delete that object to begin without it",
        )
    database.quick_check(target, deadline=deadline)
    facts = database.inspect(target, deadline=deadline)
    return Imported(sum(facts.rows.values()), target.stat().st_size)


async def publish(lane: Lane, record: SnapshotRecord, *, deadline: Deadline) -> None:
    """Write a database of the mirror, which is the snapshot of `record`, in the old layout."""
    mirror = await threads.run(lane.mirror.path)
    if mirror is None:
        return
    project, store = lane.project, lane.store
    async with temp_dir(lane) as folder:
        built = folder / "claude-mem.db"
        source = lane.source(record.node, record.device_id)
        await threads.run(install.build_from, mirror, built, source=source, deadline=deadline)
        sha256 = await threads.run(files.sha256_of, built)
        manifest = LegacyManifest(
            canonical_id=project,
            project=lane.name,
            sha256=sha256,
            size_bytes=built.stat().st_size,
            pushed_at=record.created_at,
            node_id=lane.node,
            seq=record.seq,
        )
        await store.upload(layout.legacy_database(project), built, if_absent=False, deadline=deadline)
    line = f"{sha256}  claude-mem.db\n".encode()
    await store.put(layout.legacy_sum(project), line, if_absent=False, deadline=deadline)
    await store.put(layout.legacy_manifest(project), encode(manifest), if_absent=False, deadline=deadline)


async def _recorded_sum(lane: Lane, *, deadline: Deadline) -> str | None:
    """Return the sha256 that stands beside the database: in its own file, else in the manifest, else nowhere."""
    try:
        line = await lane.store.get(layout.legacy_sum(lane.project), deadline=deadline)
        words = line.decode("ascii", "replace").split()
        if words:
            return words[0].lower()
    except ObjectMissingError:
        pass
    try:
        body = await lane.store.get(layout.legacy_manifest(lane.project), deadline=deadline)
        return msgspec.json.decode(body, type=LegacyManifest).sha256 or None
    except (ObjectMissingError, msgspec.DecodeError):
        return None
