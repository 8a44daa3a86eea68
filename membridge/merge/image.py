"""The image of a memory, the object of a full snapshot: its memory file, compressed in parts.

A state comes to another machine at the speed of copying; rows that are inserted one by one take ten times as long. The
rows are counted while the parts are compressed, which takes as long: their sums come last. Two threads decompress.
Nothing in an image is relied on before its schema has been compared.
"""

import os
from pathlib import Path
from threading import Lock
from typing import BinaryIO, Protocol

import msgspec
import zstandard

from membridge.aio import threads
from membridge.aio.deadline import Deadline
from membridge.merge.memory_file import MemoryFile
from membridge.merge.row_stream import LEVEL, Tail

#: The first bytes of an image, its version among them.
MAGIC = b"MBFULL4\n"
#: Bytes of the memory file in a part; the last one has what is left.
PART = 4 << 20
#: Bytes written at once. Linux takes pages as large as a write for its cache; those of 4 MiB made it ten times as slow
#: on a virtual machine, whose host had to give the memory first.
_PIECE = 256 << 10
#: Bytes that say how long a part is, and how long one can be: zstd adds to what cannot be compressed.
_LENGTH, _LONGEST = 4, PART + (PART >> 7)


class MalformedImageError(ValueError):
    """Bytes that are not the image of a memory, or one that is not whole."""


def pack(memory: MemoryFile, target: Path) -> None:
    """Write the image of `memory`, which is built and has no transaction under way. Blocking.

    A memory that notes no sums, as it was only filled, notes them then; otherwise OtherMemoryError says that it does
    not hold the rows that it should. What the state is called is not in the image: only a commit gives it a name.
    """
    memory.note(b"")
    noted, size = memory.rows(), memory.size_bytes()
    # Nobody writes to the file meanwhile: what is counted is what is packed.
    with target.open("wb") as packed:
        packed.write(MAGIC)
        with threads.beside(_pack_parts, memory.path, size, packed):
            counted = memory.counted()
        packed.write(_framed(msgspec.msgpack.encode(counted)))
    if noted:
        memory.check_counted(counted)
    else:
        memory.note_counted(counted)


class Source(Protocol):
    """What an image is read from: an open file, or one that is still arriving."""

    def read(self, size: int, /) -> bytes:
        """Return the next bytes, fewer than `size` only at the end."""
        ...


def unpack(source: Source, target: Path, *, size_bytes: int, deadline: Deadline) -> MemoryFile:
    """Write the memory file of `size_bytes` whose image `source` has; return it open, as one that is being built.

    Blocking. Raises MalformedImageError and OtherSchemaError; what was begun stays there.
    """
    counted = _written(source, target, size_bytes)
    memory = MemoryFile(target, deadline=deadline, building=True)
    try:
        memory.check_schema()
        memory.note_counted(counted)
    except BaseException:
        memory.close()
        raise
    return memory


def _written(source: Source, target: Path, size_bytes: int) -> Tail:
    """Write the file, and return what its rows add up to. Raises MalformedImageError."""
    with target.open("wb") as file:
        if source.read(len(MAGIC)) != MAGIC:
            raise MalformedImageError("not the image of a memory")
        parts = _Parts(source, size_bytes)
        with threads.beside(parts.write, file.fileno()):
            parts.write(file.fileno())
        try:
            counted = msgspec.msgpack.decode(_next(source), type=Tail)
        except msgspec.DecodeError as error:
            raise MalformedImageError(f"the image does not say what its rows add up to: {error}") from error
        if source.read(1):
            raise MalformedImageError(f"the image holds more than {size_bytes} bytes")
    return counted


def _pack_parts(path: Path, size: int, packed: BinaryIO) -> None:
    """Write the parts of a file of `size` bytes. One buffer: a new one each time costs more than to compress it."""
    buffer = memoryview(bytearray(PART))
    compressor = zstandard.ZstdCompressor(level=LEVEL, write_checksum=True)
    with path.open("rb", buffering=0) as file:
        for start in range(0, size, PART):
            wanted, read = min(PART, size - start), 0
            while read < wanted and (more := file.readinto(buffer[read:wanted])):
                read += more
            packed.write(_framed(compressor.compress(buffer[:read])))


class _Parts:
    """The parts of a file of `size` bytes that `source` has. Of two threads one reads while the other writes."""

    def __init__(self, source: Source, size: int) -> None:
        self._source, self._size, self._read = source, size, 0
        self._lock = Lock()

    def write(self, file: int) -> None:
        """Write parts, each to its place, until none is left or one cannot be written. Raises MalformedImageError."""
        unpacker = _Unpacker(file, self._size)
        try:
            while (part := self._next()) is not None:
                unpacker.put(*part)
        except BaseException:
            with self._lock:
                self._read = self._size
            raise

    def _next(self) -> tuple[bytes, int] | None:
        """Return the next part and its place; they are read in their order."""
        with self._lock:
            start = self._read
            if start >= self._size:
                return None
            frame = _next(self._source)
            self._read = start + PART
            return frame, start


class _Unpacker:
    """Writes parts of a file of `size` bytes."""

    def __init__(self, file: int, size: int) -> None:
        self._file, self._size, self._buffer = file, size, memoryview(bytearray(PART))
        self._decompressor = zstandard.ZstdDecompressor()

    def put(self, frame: bytes, start: int) -> None:
        """Write what `frame` holds to `start`. Raises MalformedImageError."""
        wanted, size = min(PART, self._size - start), 0
        try:
            # Never more than a part at once, however small the frame is.
            with self._decompressor.stream_reader(frame) as reader:
                while size < wanted and (more := _read(reader, self._buffer[size:wanted])):
                    size += more
                if size < wanted or _read(reader, memoryview(bytearray(1))):
                    raise MalformedImageError(f"a part of the image does not hold {wanted} bytes")
        except zstandard.ZstdError as error:
            raise MalformedImageError(f"the image does not decompress: {error}") from error
        size = 0
        while size < wanted:
            size += os.pwrite(self._file, self._buffer[size : min(size + _PIECE, wanted)], start + size)


def _framed(part: bytes) -> bytes:
    return len(part).to_bytes(_LENGTH, "little") + part


def _next(source: Source) -> bytes:
    """Return the next part of an image. Raises MalformedImageError."""
    length = int.from_bytes(source.read(_LENGTH), "little")
    if not 0 < length <= _LONGEST:
        raise MalformedImageError(f"the image has a part of {length} bytes")
    return source.read(length)


def _read(reader: zstandard.ZstdDecompressionReader, buffer: memoryview) -> int:
    return reader.readinto(buffer)  # pyright: ignore[reportUnknownMemberType] - zstandard's stub lacks the buffer's type
