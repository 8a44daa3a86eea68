"""Bring a mirror to the head: fetch what is missing, rebuild the file beside the old one, verify it.

The old mirror and its position stay as they are; the caller merges first and advances the position after that.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import zstandard

from membridge import blocking, bounded
from membridge.claudemem import database
from membridge.deadline import Deadline
from membridge.errors import CorruptObjectError
from membridge.snapshot import chain, delta, files, heads
from membridge.snapshot.chain import Position, Way
from membridge.snapshot.lane import Lane
from membridge.snapshot.mirror import map_file
from membridge.snapshot.steps import Steps
from schemas.snapshot import SnapshotKind, SnapshotObject, SnapshotRecord

#: Objects downloaded at once.
READERS = 4
#: Deltas held on disk at once before they are applied; bounds the space a long chain needs.
BATCH = 16


@dataclass(frozen=True, slots=True)
class Fetched:
    """The new mirror, adopted but not yet current. `base` is the old one when the new one descends from it."""

    path: Path
    position: Position
    base: Path | None
    downloaded_bytes: int


async def fetch(lane: Lane, head: SnapshotRecord, *, steps: Steps, deadline: Deadline) -> Fetched:
    """Build the database file of `head` in the mirror's folder and return it, verified.

    A mirror that disagrees with its position takes the whole chain instead, and is then no base of a merge.
    Errors: CorruptObjectError when an object or the result is not what its record says, ObjectMissingError when the
    chain names an object that is gone; the mirror is then as before.
    """
    position = lane.mirror.position()
    if position is not None:
        way = await _way(lane, head, position, deadline=deadline)
        if way is not None:
            try:
                return await _build(lane, head, way, steps=steps, deadline=deadline)
            except CorruptObjectError:
                # The mirror or an object: rebuilt from the full snapshot it shows which.
                if way.from_full:
                    raise
    way = await _way(lane, head, None, deadline=deadline)
    if way is None:
        raise CorruptObjectError(f"the snapshots of {lane.name} are no chain")
    return await _build(lane, head, way, steps=steps, deadline=deadline)


async def _way(lane: Lane, head: SnapshotRecord, position: Position | None, *, deadline: Deadline) -> Way | None:
    try:
        seqs = [seq for seq in chain.records_needed(head, position) if seq != head.seq]
        records = await heads.fetch_records(lane, seqs, deadline=deadline)
        return chain.plan(head, position, records | {head.seq: head})
    except chain.BrokenChainError as error:
        raise CorruptObjectError(
            f"the snapshots of {lane.name} are no chain: {error}", remedy="push a full snapshot from the primary"
        ) from error


async def _build(lane: Lane, head: SnapshotRecord, way: Way, *, steps: Steps, deadline: Deadline) -> Fetched:
    mirror, target = lane.mirror, Position(head.seq, head.epoch, head.sha256)
    base = mirror.path() if way.descends else None
    if base is not None and all(record.object is None for record in way.commits):
        return Fetched(base, target, base, 0)
    staged = await blocking.run(mirror.stage)
    work = staged.with_name("objects.part")
    await blocking.run(_fresh_folder, work)
    try:
        if base is not None and not way.from_full:
            await blocking.run(_copy_file, base, staged)
        downloaded = await _rebuild(lane, way.commits, staged, work, steps=steps, deadline=deadline)
        with steps.step("verify"):
            await blocking.run(_verify, staged, head, way, deadline)
        return Fetched(await blocking.run(mirror.adopt, staged, target), target, base, downloaded)
    finally:
        await blocking.run(files.remove, work)


async def _rebuild(
    lane: Lane, commits: Sequence[SnapshotRecord], staged: Path, work: Path, *, steps: Steps, deadline: Deadline
) -> int:
    objects = [(record, record.object) for record in commits if record.object is not None]
    total, done = sum(stored.size_bytes for _, stored in objects), 0
    for start in range(0, len(objects), BATCH):
        batch = objects[start : start + BATCH]
        with steps.step("download"):
            await _download(lane, [stored for _, stored in batch], work, deadline=deadline)
            done += sum(stored.size_bytes for _, stored in batch)
            steps.advance(done, total)
        with steps.step("apply"):
            for record, stored in batch:
                path = work / stored.sha256
                await blocking.run(_apply, record, path, staged)
                path.unlink()
    return done


async def _download(lane: Lane, objects: list[SnapshotObject], work: Path, *, deadline: Deadline) -> None:
    async def one(stored: SnapshotObject) -> None:
        path = work / stored.sha256
        await lane.store.download(stored.key, path, deadline=deadline)
        if await blocking.run(files.sha256_of, path) == stored.sha256:
            return
        # A second download heals what the network broke; what is broken at rest stays broken.
        await blocking.run(path.unlink)
        await lane.store.download(stored.key, path, deadline=deadline)
        if await blocking.run(files.sha256_of, path) != stored.sha256:
            raise CorruptObjectError(f"object {stored.key} is damaged: its sha256 is not the recorded one")

    await bounded.each(objects, one, at_once=READERS)


def _apply(record: SnapshotRecord, stored: Path, staged: Path) -> None:
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
                    raise CorruptObjectError(f"the full snapshot of seq {record.seq} is longer than it should be")
                target.write(chunk)
        except zstandard.ZstdError as error:
            raise CorruptObjectError(f"the full snapshot of seq {record.seq} does not decompress") from error


def _patch(record: SnapshotRecord, stored: Path, staged: Path) -> None:
    image = map_file(staged)
    try:
        with stored.open("rb") as source, staged.open("rb+") as target:
            reader = delta.Reader(_chunks(source.fileno()))
            header = reader.header
            if header.result.hex() != record.sha256 or header.parent.hex() != record.parent_sha256:
                raise CorruptObjectError(f"the delta of seq {record.seq} belongs to another snapshot")
            # The map keeps the parent's length, so pages beyond it have no dictionary, as when they were encoded;
            # each page is read through the map before it is written.
            for page in reader.pages(image):
                os.pwrite(target.fileno(), page.content, page.number * header.page_size)
            os.ftruncate(target.fileno(), header.page_count * header.page_size)
    except delta.MalformedDeltaError as error:
        raise CorruptObjectError(f"the delta of seq {record.seq} is damaged: {error}") from error
    finally:
        image.close()


def _chunks(descriptor: int) -> Iterator[bytes]:
    while chunk := os.read(descriptor, files.BLOCK):
        yield chunk


def _verify(staged: Path, head: SnapshotRecord, way: Way, deadline: Deadline) -> None:
    if staged.stat().st_size != head.page_size * head.page_count or files.sha256_of(staged) != head.sha256:
        raise CorruptObjectError(f"the database of seq {head.seq} is not the one that was committed")
    # Whoever committed it checked all of it; what is new here is checked as far as a merge reads it.
    if way.from_full:
        database.quick_check(staged, deadline=deadline)
    else:
        database.check_memory(staged, deadline=deadline)


def _copy_file(source: Path, target: Path) -> None:
    with files.translated(target):
        import shutil  # noqa: PLC0415 - it brings three archive formats along

        shutil.copyfile(source, target)


def _fresh_folder(folder: Path) -> None:
    with files.translated(folder):
        files.remove(folder)
        folder.mkdir(mode=0o700)
