"""The WAL of a foreign database, read without a lock: where it stands, and which pages it changed since.

Nothing here writes or checkpoints. The header of the WAL's index is read through a descriptor that SQLite has open;
the caller keeps a connection to the database open meanwhile.
"""

import os
import struct
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple, Self

from membridge.claudemem import open_files

#: The WAL's index, in native order: version, unused, commits, flags, page size, frames, pages, checksum, salt.
_INDEX = struct.Struct("=III2BHII8s8s")
_INDEX_SUM = struct.Struct("=II")
_INDEX_VERSION = 3_007_000
#: The header is there twice; after the copies come the frames that a checkpoint has moved and those it began to move.
_MOVED = struct.Struct("=I28xI")
_MOVED_AT = 2 * (_INDEX.size + _INDEX_SUM.size)
INDEX_BYTES = _MOVED_AT + _MOVED.size

_WAL_HEAD, _FRAME_HEAD = 32, 24
#: A frame's header: page, pages of the database if it ends a commit, salt, checksum over all frames so far.
_FRAME = struct.Struct(">II8s8s")


class CannotTellError(Exception):
    """The cheap way does not tell what changed: everything is to be compared. Never leaves this package."""


class WalState(NamedTuple):
    """Where SQLite sees the end of the WAL; `total` is the checksum over its frames as the frames hold it.

    `commits` counts the commits since the index was made; `moved` and `moving` are frames that a checkpoint has written
    into the database, or has begun to.
    """

    salt: bytes
    frames: int
    total: bytes
    commits: int
    pages: int
    page_size: int
    moved: int
    moving: int


class Frame(NamedTuple):
    """One frame: its page, and whether it ends a commit."""

    page: int
    is_commit: bool
    salt: bytes
    total: bytes


def state_of(index: bytes | None) -> WalState | None:
    """Return what the first `INDEX_BYTES` of a WAL's index say; None for one that is not valid now."""
    size = _INDEX.size + _INDEX_SUM.size
    if index is None or len(index) < INDEX_BYTES:
        return None
    head = index[: _INDEX.size]
    if _sum(head) != index[_INDEX.size : size]:
        return None
    version, _, commits, _, _, page_size, frames, pages, total, salt = _INDEX.unpack_from(head)
    if version != _INDEX_VERSION:
        return None
    moved, moving = _MOVED.unpack_from(index, _MOVED_AT)
    return WalState(
        salt=salt,
        frames=frames,
        # The index has the numbers in the machine's order, the frames always in the one of networks.
        total=struct.pack(">II", *struct.unpack("=II", total)),
        commits=commits,
        pages=pages,
        # The size 65,536 does not fit into its two bytes and stands there as 1.
        page_size=1 << 16 if page_size == 1 else page_size,
        moved=moved,
        moving=moving,
    )


def state(path: Path) -> WalState | None:
    """Return where the WAL of the database at `path` stands; None without one, or when no connection has it open."""
    return state_of(open_files.read(Path(f"{path}-shm"), INDEX_BYTES, 0))


class WalFile:
    """The frames of a WAL by number, from 1; a frame that is not there any more, or not yet, is None."""

    def __init__(self, path: Path) -> None:
        self._file = Path(f"{path}-wal").open("rb")  # noqa: SIM115 - closed by `close`
        self._size = _FRAME_HEAD + int.from_bytes(self._file.read(_WAL_HEAD)[8:12], "big")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; SQLite has no locks on a WAL that this could drop."""
        self._file.close()

    def frame(self, number: int) -> Frame | None:
        """Return a frame's header."""
        head = os.pread(self._file.fileno(), _FRAME_HEAD, self._at(number))
        if len(head) < _FRAME_HEAD:
            return None
        page, pages, salt, total = _FRAME.unpack(head)
        return Frame(page, pages != 0, salt, total)

    def frames(self, first: int, last: int) -> Iterator[Frame]:
        """Yield the frames from `first` to `last`, up to the end of the file."""
        for number in range(first, last + 1):
            found = self.frame(number)
            if found is None:
                return
            yield found

    def content(self, number: int) -> bytes:
        """Return the page in a frame."""
        return os.pread(self._file.fileno(), self._size - _FRAME_HEAD, self._at(number) + _FRAME_HEAD)

    def frames_in_file(self) -> int:
        """Return how many whole frames the file has room for."""
        return max(0, os.fstat(self._file.fileno()).st_size - _WAL_HEAD) // self._size

    def _at(self, number: int) -> int:
        return _WAL_HEAD + (number - 1) * self._size


def pages_since(wal: WalFile, before: WalState, now: WalState, *, counted: bool) -> set[int]:
    """Return the pages that commits changed between two states, and maybe some that none did.

    `counted` when the same index was open all the time between, so that its number of commits can be trusted: only then
    a WAL that began anew meanwhile tells all. Raises CannotTellError, which says why.
    """
    if now.salt == before.salt:
        return _in_one(wal, before, now)
    if not counted or now.commits < before.commits:
        raise CannotTellError("the WAL began anew while it was not watched")
    # A WAL that was empty has no tail, and the first one of a file has a salt that does not follow from anything.
    if before.frames and int.from_bytes(now.salt[:4], "big") != (int.from_bytes(before.salt[:4], "big") + 1) % (
        1 << 32
    ):
        raise CannotTellError("the WAL began anew more than once")
    return _across(wal, before, now)


def _in_one(wal: WalFile, before: WalState, now: WalState) -> set[int]:
    if now.frames < before.frames:
        raise CannotTellError("the WAL lost its end")
    if before.frames:
        end = wal.frame(before.frames)
        # After a power cut a WAL may be written once more under the same salt.
        if end is None or (end.salt, end.total) != (before.salt, before.total):
            raise CannotTellError("the WAL is not the one that was seen")
    return {frame.page for frame in _all_of(wal, before.frames + 1, now)}


def _across(wal: WalFile, before: WalState, now: WalState) -> set[int]:
    """Return the pages of the new WAL and of the old one's tail, which lies behind the new one's end."""
    new = _all_of(wal, 1, now)
    # The new WAL overwrites the old one from its begin on: what follows the last frame seen is there whole, or not.
    rest = wal.frames(before.frames + 1, wal.frames_in_file() if before.frames else 0)
    tail = list(takewhile(lambda frame: frame.salt == before.salt, rest))
    if sum(frame.is_commit for frame in (*new, *tail)) != now.commits - before.commits:
        raise CannotTellError("the WAL began anew over commits that were not seen")
    return {frame.page for frame in (*new, *tail)}


def _all_of(wal: WalFile, first: int, now: WalState) -> list[Frame]:
    found = list(wal.frames(first, now.frames))
    if len(found) != now.frames - first + 1 or any(frame.salt != now.salt for frame in found):
        raise CannotTellError("the WAL's frames are not there any more")
    return found


def _sum(head: bytes) -> bytes:
    first = second = 0
    for one, other in struct.iter_unpack("=II", head):
        first = (first + one + second) & 0xFFFF_FFFF
        second = (second + other + first) & 0xFFFF_FFFF
    return _INDEX_SUM.pack(first, second)
