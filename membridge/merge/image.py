"""The image of a memory, the object of a full snapshot: its memory file, compressed in parts, two at a time.

A state comes to another machine at the speed of copying; rows that are inserted one by one take ten times as long. Who
receives an image relies on nothing in it before `MemoryFile.check_schema` has looked at the file.
"""

import os
from pathlib import Path
from typing import BinaryIO

import zstandard

from membridge.aio import threads
from membridge.merge.memory_file import MemoryFile
from membridge.merge.row_stream import LEVEL

#: The first bytes of an image, its version among them.
MAGIC = b"MBFULL3\n"
#: Bytes of the memory file in a part; the last one has what is left.
PART = 4 << 20
#: Bytes that say how long a part is, and how long one can be: zstd adds to what cannot be compressed.
_LENGTH, _LONGEST = 4, PART + (PART >> 7)


class MalformedImageError(ValueError):
    """Bytes that are not the image of a memory, or one that is not whole."""


def pack(memory: MemoryFile, target: Path) -> None:
    """Write the image of `memory`, which is built and has no transaction under way. Blocking.

    What the state is called is not in it: only a commit gives it a name.
    """
    memory.note(b"")
    with memory.path.open("rb") as file, target.open("wb") as packed:
        packed.write(MAGIC)
        one, other = _Packer(file.fileno()), _Packer(file.fileno())
        for start in range(0, memory.size_bytes(), 2 * PART):
            with threads.beside(other.part, start + PART) as second:
                packed.write(one.part(start))
            packed.write(second.result())


def unpack(packed: Path, target: Path, *, size_bytes: int) -> None:
    """Write the memory file of `size_bytes` whose image is in `packed`. Blocking. Raises MalformedImageError."""
    with packed.open("rb") as source, target.open("wb") as file:
        if source.read(len(MAGIC)) != MAGIC:
            raise MalformedImageError("not the image of a memory")
        one, other = _Unpacker(file.fileno(), size_bytes), _Unpacker(file.fileno(), size_bytes)
        for start in range(0, size_bytes, 2 * PART):
            # Read in their order, then written each to its place.
            first, second = _next(source), _next(source) if start + PART < size_bytes else b""
            with threads.beside(other.put, second, start + PART):
                one.put(first, start)
        if source.read(1):
            raise MalformedImageError(f"the image holds more than {size_bytes} bytes")


class _Packer:
    """Compresses parts of a file. One buffer: a new one each time costs more than to compress it."""

    def __init__(self, file: int) -> None:
        self._file, self._buffer = file, memoryview(bytearray(PART))
        self._compressor = zstandard.ZstdCompressor(level=LEVEL, write_checksum=True)

    def part(self, start: int) -> bytes:
        """Return the part that begins at `start`, with its length; nothing behind the end."""
        size = 0
        while more := os.preadv(self._file, [self._buffer[size:]], start + size):
            size += more
        if not size:
            return b""
        frame = self._compressor.compress(self._buffer[:size])
        return len(frame).to_bytes(_LENGTH, "little") + frame


class _Unpacker:
    """Writes parts of a file of `size` bytes."""

    def __init__(self, file: int, size: int) -> None:
        self._file, self._size, self._buffer = file, size, memoryview(bytearray(PART))
        self._decompressor = zstandard.ZstdDecompressor()

    def put(self, frame: bytes, start: int) -> None:
        """Write what `frame` holds to `start`. Raises MalformedImageError."""
        wanted, size = max(0, min(PART, self._size - start)), 0
        if not wanted:
            return
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
            size += os.pwrite(self._file, self._buffer[size:wanted], start + size)


def _next(source: BinaryIO) -> bytes:
    """Return the next part of an image. Raises MalformedImageError."""
    length = int.from_bytes(source.read(_LENGTH), "little")
    if not 0 < length <= _LONGEST:
        raise MalformedImageError(f"the image has a part of {length} bytes")
    return source.read(length)


def _read(reader: zstandard.ZstdDecompressionReader, buffer: memoryview) -> int:
    return reader.readinto(buffer)  # pyright: ignore[reportUnknownMemberType] - zstandard's stub lacks the buffer's type
