"""Build a database file from a chain's objects: decompress the full snapshot, then apply the deltas' pages.

Works on files in a temporary folder only; the caller verifies the result.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import zstandard

from membridge.aio import tasks, threads
from membridge.aio.deadline import Deadline
from membridge.commits import delta
from membridge.commits.mirror import map_file
from membridge.commits.progress import ProgressTracker
from membridge.commits.replica import Replica
from membridge.errors import CorruptObjectError
from membridge.system import files
from schemas.snapshot import SnapshotKind, SnapshotObject, SnapshotRecord

#: Objects downloaded at once.
READERS = 4
#: Deltas held on disk at once before they are applied; bounds the space a long chain needs.
BATCH = 16


async def rebuild(
    replica: Replica,
    commits: Sequence[SnapshotRecord],
    staged: Path,
    work: Path,
    *,
    progress: ProgressTracker,
    deadline: Deadline,
) -> int:
    """Apply `commits` to `staged`, oldest first, and return the bytes downloaded; `work` is a folder for objects.

    The caller verifies the result. Errors: CorruptObjectError, ObjectMissingError, DiskFullError, the store's.
    """
    objects = [(record, record.object) for record in commits if record.object is not None]
    total, done = sum(stored.size_bytes for _, stored in objects), 0
    for start in range(0, len(objects), BATCH):
        batch = objects[start : start + BATCH]
        with progress.step("download"):
            await download(replica, [stored for _, stored in batch], work, deadline=deadline)
            done += sum(stored.size_bytes for _, stored in batch)
            progress.advance(done, total)
        with progress.step("apply"):
            for record, stored in batch:
                path = work / stored.sha256
                await threads.run(apply, record, path, staged)
                await threads.run(files.discard, path)
    return done


async def download(replica: Replica, objects: Sequence[SnapshotObject], work: Path, *, deadline: Deadline) -> None:
    """Fetch objects into `work`, each under its sha256, and check them."""

    async def one(stored: SnapshotObject) -> None:
        path = work / stored.sha256
        await replica.store.download(stored.key, path, deadline=deadline)
        if await threads.run(files.sha256_of, path) == stored.sha256:
            return
        # A second download repairs damage of the network, not damage at rest.
        await threads.run(path.unlink)
        await replica.store.download(stored.key, path, deadline=deadline)
        if await threads.run(files.sha256_of, path) != stored.sha256:
            raise CorruptObjectError(f"object {stored.key} is damaged: its sha256 is not the recorded one")

    await tasks.each(objects, one, at_once=READERS)


def apply(record: SnapshotRecord, stored: Path, staged: Path) -> None:
    """Make `staged`, which is the parent of `record`, what the object `stored` says. Blocking."""
    with files.translated(staged):
        if record.kind is SnapshotKind.FULL:
            _decompress(record, stored, staged)
        else:
            _patch(record, stored, staged)


def _decompress(record: SnapshotRecord, stored: Path, staged: Path) -> None:
    limit = record.page_size * record.page_count
    with stored.open("rb") as source, staged.open("wb") as target:
        written = 0
        try:
            for chunk in zstandard.ZstdDecompressor().read_to_iter(source, write_size=files.BLOCK):
                written += len(chunk)
                if written > limit:
                    raise CorruptObjectError(f"the object of snapshot {record.seq} is longer than its database")
                target.write(chunk)
        except zstandard.ZstdError as error:
            raise CorruptObjectError(f"the object of snapshot {record.seq} does not decompress") from error


def _patch(record: SnapshotRecord, stored: Path, staged: Path) -> None:
    image = map_file(staged)
    try:
        with stored.open("rb") as source, staged.open("rb+") as target:
            reader = delta.Reader(_chunks(source.fileno()))
            header = reader.header
            if header.result.hex() != record.sha256 or header.parent.hex() != record.parent_sha256:
                raise CorruptObjectError(f"the object of snapshot {record.seq} is a delta of another snapshot")
            # The map keeps the parent's length, so pages beyond it have no dictionary, as when they were encoded;
            # each page is read through the map before it is written.
            for page in reader.pages(image):
                os.pwrite(target.fileno(), page.content, page.number * header.page_size)
            os.ftruncate(target.fileno(), header.page_count * header.page_size)
    except delta.MalformedDeltaError as error:
        raise CorruptObjectError(f"the delta of snapshot {record.seq} is damaged: {error}") from error
    finally:
        image.close()


def _chunks(descriptor: int) -> Iterator[bytes]:
    while chunk := os.read(descriptor, files.BLOCK):
        yield chunk
