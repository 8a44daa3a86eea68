"""The file of an undo record: a header, then a frame for each transaction with the rows that it was about to write.

Form: `MBUNDO01`, then frames. A frame is the length of its content and its rows (u32 LE each), blake2b-128 of both and
the content, then the content: the header as msgpack, or `Former` entries as msgpack in zstd. A frame is on the disk
before its transaction is committed. So one that is cut off or damaged at the very end belongs to a transaction that
never happened, and is left out; damage anywhere else is an error.
"""

import hashlib
import os
import struct
from collections.abc import Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec
import zstandard

from membridge.errors import DatabaseCorruptError
from membridge.merge.former import Former
from membridge.system import files

MAGIC = b"MBUNDO01"
_FRAME = struct.Struct("<II16s")
#: zstd level: a transaction's rows are some kilobytes.
_LEVEL = 6
#: Bytes of one frame: a transaction takes 0.06 s, which is a few megabytes.
_MOST = 1 << 30


class Facts(msgspec.Struct, frozen=True):
    """What tells a database from another one in its place: its first migration, and the rowids that it has given."""

    born: str
    sequences: dict[str, int]

    def continues(self, earlier: "Facts") -> bool:
        """Whether this is a later state of the database that `earlier` was read of."""
        went_on = all(self.sequences.get(table, last) >= last for table, last in earlier.sequences.items())
        return self.born == earlier.born and went_on


class Header(msgspec.Struct, frozen=True):
    """What a record follows: the backup before it, nothing where the database is another one since.

    `last` is the newest of the backups whose records were joined into this one, nothing for a record that is alone.
    With `closed` the database is about to be replaced as a whole: no row is recorded, and no chain goes on from here.
    """

    facts: Facts
    previous: str = ""
    last: str = ""
    closed: bool = False


@dataclass(frozen=True, slots=True)
class Outline:
    """What a record says without its rows being read, and where its last frame begins."""

    header: Header
    rows: int
    end: int
    tail: int


def begin(path: Path, header: Header) -> None:
    """Make an empty record in the place of whatever is there. Errors: DiskFullError, FileAccessError."""
    files.save(path, MAGIC + _frame(msgspec.msgpack.encode(header), 0))


def append(path: Path, formers: Sequence[Former]) -> None:
    """Add the rows of a transaction and force them to the disk; nothing is added on failure. Errors as `begin`."""
    content = zstandard.ZstdCompressor(level=_LEVEL).compress(msgspec.msgpack.encode(formers))
    with files.translated(path):
        before = outline(path).end
        with path.open("r+b") as file:
            file.truncate(before)
            file.seek(before)
            try:
                file.write(_frame(content, len(formers)))
                file.flush()
                files.sync(file.fileno())
            except OSError:
                with suppress(OSError):
                    file.truncate(before)
                raise


def write(path: Path, header: Header, formers: Sequence[Former]) -> None:
    """Make a whole record in the place of whatever is there. Errors as `begin`."""
    content = zstandard.ZstdCompressor(level=_LEVEL).compress(msgspec.msgpack.encode(formers))
    files.save(path, MAGIC + _frame(msgspec.msgpack.encode(header), 0) + _frame(content, len(formers)))


def outline(path: Path) -> Outline:
    """Return the outline of a record. Raises DatabaseCorruptError for one whose header is damaged, FileAccessError."""
    with files.translated(path), path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if file.read(len(MAGIC)) != MAGIC:
            raise _damaged(path)
        place, rows, tail, header = len(MAGIC), 0, 0, None
        while place + _FRAME.size <= size:
            length, count, digest = _FRAME.unpack(file.read(_FRAME.size))
            after = place + _FRAME.size + length
            if after > size:
                break
            content = file.read(length) if header is None or after == size else b""
            if not content:
                file.seek(after)
            elif _digest(content, count) != digest:
                # Nothing comes after it, or it is the header.
                break
            elif header is None:
                header = _header(path, content)
            rows, tail, place = rows + count, place, after
        if header is None:
            raise _damaged(path)
        return Outline(header, rows, place, tail if rows else place)


def read(path: Path) -> tuple[Header, list[list[Former]]]:
    """Return the header of a record and the rows of each transaction. Raises DatabaseCorruptError, FileAccessError."""
    known = outline(path)
    return known.header, list(_blocks(path, known.end))


def last(path: Path) -> list[Former]:
    """Return the rows of the last transaction. Errors as `read`."""
    known = outline(path)
    found: list[Former] = []
    for block in _blocks(path, known.end):
        found = block
    return found


def without_last(path: Path) -> None:
    """Remove the last transaction from a record. Errors as `begin`."""
    known = outline(path)
    with files.translated(path), path.open("r+b") as file:
        file.truncate(known.tail)
        files.sync(file.fileno())


def _blocks(path: Path, end: int) -> Generator[list[Former]]:
    with files.translated(path), path.open("rb") as file:
        place = file.seek(len(MAGIC))
        while place < end:
            length, count, digest = _FRAME.unpack(file.read(_FRAME.size))
            content = file.read(length)
            if _digest(content, count) != digest:
                raise _damaged(path)
            if count:
                yield _formers(path, content)
            place += _FRAME.size + length


def _header(path: Path, content: bytes) -> Header:
    try:
        return msgspec.msgpack.decode(content, type=Header)
    except msgspec.DecodeError as error:
        raise _damaged(path) from error


def _formers(path: Path, content: bytes) -> list[Former]:
    try:
        plain = zstandard.ZstdDecompressor().decompress(content, max_output_size=_MOST)
        return msgspec.msgpack.decode(plain, type=list[Former])
    except (zstandard.ZstdError, msgspec.DecodeError) as error:
        raise _damaged(path) from error


def _frame(content: bytes, rows: int) -> bytes:
    return _FRAME.pack(len(content), rows, _digest(content, rows)) + content


def _digest(content: bytes, rows: int) -> bytes:
    head = struct.pack("<II", len(content), rows)
    return hashlib.blake2b(head + content, digest_size=16).digest()


def _damaged(path: Path) -> DatabaseCorruptError:
    return DatabaseCorruptError(
        f"the undo record {path} is damaged", remedy="run `membridge backups` and choose a full copy, or a newer one"
    )
