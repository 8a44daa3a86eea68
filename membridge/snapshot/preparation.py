"""What a push commits, before it is committed: the rows that changed, or the whole memory, packed into one file.

What is sent is taken into a memory file first: it fits, or it is not sent. That is the mirror in a transaction that
only the commit ends, or a file beside it. Whoever prepares nothing more than this leaves the mirror as it was.
"""

import enum
from collections.abc import Generator, Iterable
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from membridge.aio import threads
from membridge.aio.deadline import Deadline
from membridge.claudemem import database
from membridge.commits import chain
from membridge.commits.heads import KnownHead
from membridge.commits.rebuild import chunks_of
from membridge.errors import CorruptObjectError, DatabaseInvalidError, NotFoundError
from membridge.merge import image, row_stream
from membridge.merge.fill import fill
from membridge.merge.memory_file import MemoryFile, OtherMemoryError
from membridge.merge.row_delta import delta_of
from membridge.merge.row_stream import Message
from membridge.snapshot import standing
from membridge.snapshot.lane import Lane
from membridge.snapshot.standing import Seen
from membridge.system import files
from schemas.snapshot import SnapshotKind


class Place(enum.Enum):
    """Where a prepared state is, and what becomes of it after the commit."""

    MIRROR = enum.auto()
    """The mirror, in a transaction."""
    STAGED = enum.auto()
    """A file of its own that becomes the mirror."""
    ASIDE = enum.auto()
    """A file of its own that is deleted: the mirror was forgotten and is no base of the live database."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a commit would bring: its object in a file, and `memory`, which holds the state that results.

    `seen` is what was read of the live database, None for a state that was not read from it.
    """

    memory: MemoryFile
    kind: SnapshotKind
    path: Path
    sha256: str
    rows: dict[str, int]
    size_bytes: int
    place: Place
    seen: Seen | None = None


def changes(lane: Lane, known: KnownHead | None, deadline: Deadline) -> Prepared | None:
    """Take what changed into the mirror, or all rows into a new one; None when nothing changed.

    Blocking. What it costs grows with what changed, but for the full snapshot that begins a chain.
    """
    path = lane.mirror.path()
    if known is None or not known.stored or path is None:
        return whole_database(lane, deadline)
    staged = lane.mirror.stage()
    packed = _packed_beside(staged)
    memory = MemoryFile(path, deadline=deadline)
    try:
        with _undone_on_failure(memory, packed):
            memory.begin()
            with standing.looking(lane, deadline=deadline) as (live, seen):
                delta = delta_of(memory, live, seen.keys, journal=lane.journal)
                size = _write(memory.passing(delta), packed)
            if memory.digest() == known.record.sha256:
                memory.close()
                files.discard(packed)
                return None
            if not chain.starts_new_chain(known.record, size, lane.chain):
                return _prepared(memory, SnapshotKind.DELTA, packed, Place.MIRROR, seen)
            memory.close()
            with _swept_on_failure(lane):
                return _new_chain(path, staged, packed, seen, deadline)
    except OtherMemoryError as error:
        lane.mirror.forget()
        raise CorruptObjectError(
            f"this node's mirror of {lane.name} was damaged and is gone: {error}",
            remedy="run the command again: it makes a new one of the newest snapshot",
        ) from error


def whole_database(lane: Lane, deadline: Deadline) -> Prepared:
    """Read all rows of the live database into a staged memory file, while SQLite checks the database. Blocking."""
    staged = lane.mirror.stage()
    packed = _packed_beside(staged)
    with _swept_on_failure(lane), threads.beside(database.quick_check, lane.database, deadline=deadline) as checked:
        since = standing.turn(lane, deadline=deadline)
        memory = MemoryFile(staged, deadline=deadline, building=True)
        with _undone_on_failure(memory, packed):
            fill(memory, lane.database, is_live=True, deadline=deadline)
            checked.result()
            return _imaged(memory, packed, Place.STAGED, Seen({}, since))


def whole_mirror(lane: Lane, deadline: Deadline) -> Prepared:
    """Copy the mirror, or the one that was forgotten last, and compare it with its sums. Blocking."""
    last = lane.mirror.last()
    if last is None:
        raise NotFoundError(
            f"this node has no mirror of {lane.name}: it has never pushed or pulled a snapshot",
            remedy="run `membridge recover --from database`",
        )
    position, path = last
    place = Place.ASIDE if lane.mirror.position() is None else Place.STAGED
    staged = lane.mirror.stage()
    packed = _packed_beside(staged)
    try:
        with _swept_on_failure(lane):
            memory = _copied(path, staged, deadline)
            with _undone_on_failure(memory, packed):
                memory.check_is(position.sha256)
                return _imaged(memory, packed, place)
    except (OtherMemoryError, DatabaseInvalidError) as error:
        raise CorruptObjectError(
            f"this node's mirror of {lane.name}, its copy of snapshot {position.seq}, is damaged",
            remedy="run `membridge recover --from mirror` on another node, or `membridge recover --from database` here",
        ) from error


def _new_chain(mirror: Path, staged: Path, packed: Path, seen: Seen, deadline: Deadline) -> Prepared:
    """Make a full snapshot of the mirror and the delta in `packed`: an image is of a file without a transaction."""
    memory = _copied(mirror, staged, deadline)
    with _undone_on_failure(memory, packed):
        memory.begin()
        memory.take_in(row_stream.decode(chunks_of(packed)))
        memory.commit(b"")
        return _imaged(memory, packed, Place.STAGED, seen)


def _copied(mirror: Path, staged: Path, deadline: Deadline) -> MemoryFile:
    with closing(MemoryFile(mirror, deadline=deadline)) as memory:
        memory.copy_to(staged, deadline=deadline)
    return MemoryFile(staged, deadline=deadline, building=True)


@contextmanager
def _undone_on_failure(memory: MemoryFile, packed: Path) -> Generator[None]:
    """Close the memory, whose transaction is rolled back, and delete what was packed when the body fails."""
    try:
        yield
    except BaseException:
        memory.close()
        files.discard(packed)
        raise


@contextmanager
def _swept_on_failure(lane: Lane) -> Generator[None]:
    """Delete what is staged when the body fails: it is as large as the memory."""
    try:
        yield
    except BaseException:
        lane.mirror.sweep()
        raise


def _imaged(memory: MemoryFile, packed: Path, place: Place, seen: Seen | None = None) -> Prepared:
    with files.translated(packed):
        image.pack(memory, packed)
    return _prepared(memory, SnapshotKind.FULL, packed, place, seen)


def _prepared(memory: MemoryFile, kind: SnapshotKind, packed: Path, place: Place, seen: Seen | None) -> Prepared:
    return Prepared(memory, kind, packed, memory.digest(), memory.rows(), memory.size_bytes(), place, seen)


def _packed_beside(staged: Path) -> Path:
    return staged.with_name("packed.part")


def _write(messages: Iterable[Message], target: Path) -> int:
    with files.translated(target), target.open("wb") as file:
        return sum(file.write(chunk) for chunk in row_stream.encode(messages))
