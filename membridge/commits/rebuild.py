"""Bring a memory file from state to state with a chain's objects: a full into an empty one, then deltas and rollups.

Whatever an object holds, a memory file ends in the state that the record promises, or as it was.
"""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

from membridge.aio import tasks, threads
from membridge.aio.deadline import Deadline
from membridge.aio.tasks import first_failure
from membridge.commits.arriving import Arriving
from membridge.commits.chain import Step
from membridge.commits.progress import ProgressTracker
from membridge.commits.replica import Replica
from membridge.errors import CorruptObjectError, DatabaseInvalidError
from membridge.merge import image
from membridge.merge.image import MalformedImageError, Source
from membridge.merge.memory_file import MemoryFile, OtherMemoryError
from membridge.merge.memory_schema import OtherSchemaError
from membridge.merge.row_stream import MalformedStreamError, decode
from membridge.merge.rows import Key
from membridge.system import files
from schemas.snapshot import SnapshotKind, SnapshotObject, SnapshotRecord

#: Objects downloaded at once.
READERS = 8
#: Objects held on disk at once before they are applied; bounds the space a long chain needs.
BATCH = 64


class Rebuilt:
    """A memory file that is being built of a chain's objects; it is sound from `finish` on. Blocking."""

    def __init__(self, target: Path, *, deadline: Deadline) -> None:
        """Build `target`, which is not there yet."""
        self._target, self._deadline = target, deadline
        self._memory: MemoryFile | None = None

    def begin(self, record: SnapshotRecord, source: Source) -> None:
        """Begin anew with the image of a full snapshot. Raises CorruptObjectError."""
        self.close()
        files.remove(self._target)
        self._memory = self._unpacked(record, source)

    def add(self, record: SnapshotRecord, packed: Path) -> None:
        """Make the file the state of `record` by an object that leads there from what it is. Raises CorruptObjectError.

        With a full snapshot it begins anew.
        """
        if record.kind is SnapshotKind.FULL:
            with files.translated(packed), packed.open("rb") as source:
                self.begin(record, source)
            return
        if self._memory is None:
            raise CorruptObjectError(f"snapshot {record.seq} begins a chain and is no full one")
        self._memory.begin()
        try:
            apply(record, packed, self._memory)
        except BaseException:
            self._memory.roll_back()
            raise
        self._memory.commit(b"")

    def digest(self) -> str:
        """Return what names the state that was reached, nothing before there is one."""
        return "" if self._memory is None else self._memory.digest()

    def check(self) -> None:
        """Compare every row with the sums. Raises OtherMemoryError, the database's."""
        if self._memory is not None:
            self._memory.check()

    def finish(self) -> None:
        """Make the file safe to be used."""
        if self._memory is not None:
            self._memory.settle()

    def close(self) -> None:
        """Close the file, whether it is finished or not."""
        if self._memory is not None:
            self._memory.close()
            self._memory = None

    def _unpacked(self, record: SnapshotRecord, source: Source) -> MemoryFile:
        try:
            with files.translated(self._target):
                memory = image.unpack(source, self._target, size_bytes=record.size_bytes, deadline=self._deadline)
            try:
                memory.check_is(record.sha256)
            except BaseException:
                memory.close()
                raise
        except (MalformedImageError, OtherSchemaError, OtherMemoryError, DatabaseInvalidError) as error:
            raise CorruptObjectError(f"the object of snapshot {record.seq} cannot be used: {error}") from error
        return memory


async def rebuild(
    replica: Replica,
    steps: Sequence[Step],
    target: Path,
    work: Path,
    *,
    progress: ProgressTracker,
    deadline: Deadline,
) -> int:
    """Make `target` the memory file to which `steps` lead, of which the first is a full one.

    Returns the bytes downloaded; `work` is a folder for objects. Errors: CorruptObjectError, ObjectMissingError,
    DiskFullError, the store's.
    """
    objects = [(step.record, step.object) for step in steps if step.object is not None]
    total, done = sum(stored.size_bytes for _, stored in objects), 0
    with closing(Rebuilt(target, deadline=deadline)) as rebuilt:
        for start in range(0, len(objects), BATCH):
            batch = rest = objects[start : start + BATCH]
            with progress.step("download"):
                if not start and await _begun(replica, batch[0], rebuilt, work, progress=progress, deadline=deadline):
                    rest = batch[1:]
                await download(replica, [stored for _, stored in rest], work, deadline=deadline)
                done += sum(stored.size_bytes for _, stored in batch)
                progress.advance(done, total)
            with progress.step("apply"):
                for record, stored in rest:
                    await threads.run(rebuilt.add, record, work / stored.sha256)
            # Two steps may have the same bytes: a memory that changed to and fro.
            for path in {work / stored.sha256 for _, stored in batch}:
                await threads.run(files.discard, path)
        await threads.run(rebuilt.finish)
    return done


async def _begun(
    replica: Replica,
    first: tuple[SnapshotRecord, SnapshotObject],
    rebuilt: Rebuilt,
    work: Path,
    *,
    progress: ProgressTracker,
    deadline: Deadline,
) -> bool:
    """Unpack a full snapshot while it is downloaded; return whether that was done, and the object is what it should be.

    If not, nothing is lost but the time: `download` and `add` say what is wrong. Errors: the store's, DiskFullError.
    """
    record, stored = first
    path = work / stored.sha256
    arriving = Arriving(path, deadline=deadline)

    def heard(done: int, total: int) -> None:
        arriving.grew()
        progress.advance(done, total)

    async def fetch() -> None:
        try:
            await replica.store.download(stored.key, path, deadline=deadline, progress=heard)
        finally:
            arriving.end()

    try:
        with first_failure():
            async with asyncio.TaskGroup() as group:
                group.create_task(fetch(), name="download a full snapshot")
                # It reads until the download has ended, which may need the threads of the pool.
                group.create_task(threads.apart(rebuilt.begin, record, arriving), name="unpack it")
    except CorruptObjectError:
        return False
    return arriving.sha256() == stored.sha256


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

    await tasks.each({stored.sha256: stored for stored in objects}.values(), one, at_once=READERS)


def apply(record: SnapshotRecord, stored: Path, memory: MemoryFile) -> dict[str, set[Key]]:
    """Make `memory`, where a step to `record` begins, what the step's object `stored` says; return its keys. Blocking.

    In the caller's transaction. Raises CorruptObjectError.
    """
    try:
        with files.translated(stored):
            keys = memory.take_in(decode(chunks_of(stored)))
    except (MalformedStreamError, OtherMemoryError) as error:
        raise CorruptObjectError(f"the object of snapshot {record.seq} cannot be used: {error}") from error
    if memory.digest() != record.sha256:
        raise CorruptObjectError(f"the memory built from snapshot {record.seq} is not the committed one")
    return keys


def chunks_of(path: Path) -> Iterator[bytes]:
    """Yield the bytes of a file."""
    with path.open("rb") as file:
        while block := file.read(files.BLOCK):
            yield block
