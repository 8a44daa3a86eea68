"""The image of a memory, the object of a full snapshot: its memory file, compressed.

A state comes to another machine at the speed of copying; rows that are inserted one by one take ten times as long. Who
receives an image relies on nothing in it before `MemoryFile.check_came` has looked at the file.
"""

from pathlib import Path

import zstandard

from membridge.merge.memory_file import MemoryFile
from membridge.merge.row_stream import BLOCK, LEVEL

#: The first bytes of an image, its version among them.
MAGIC = b"MBFULL2\n"


class MalformedImageError(ValueError):
    """Bytes that are not the image of a memory, or one that is not whole."""


def pack(memory: MemoryFile, target: Path) -> None:
    """Write the image of `memory`, which is built and has no transaction under way. Blocking.

    What the state is called is not in it: only a commit gives it a name.
    """
    memory.note(b"")
    compressor = zstandard.ZstdCompressor(level=LEVEL, write_checksum=True).compressobj(memory.size_bytes())
    with memory.path.open("rb") as file, target.open("wb") as packed:
        packed.write(MAGIC)
        # One buffer: a new block each time costs more than to compress it.
        buffer = memoryview(bytearray(BLOCK))
        while size := file.readinto(buffer):
            packed.write(compressor.compress(buffer[:size]))
        packed.write(compressor.flush())


def unpack(packed: Path, target: Path, *, size_bytes: int) -> None:
    """Write the memory file of `size_bytes` whose image is in `packed`. Blocking. Raises MalformedImageError."""
    left = size_bytes
    with packed.open("rb") as source, target.open("wb") as file:
        if source.read(len(MAGIC)) != MAGIC:
            raise MalformedImageError("not the image of a memory")
        reader = zstandard.ZstdDecompressor().stream_reader(source)
        buffer = memoryview(bytearray(BLOCK))
        try:
            # Never more at once, however small the image is.
            while left >= 0 and (size := _read(reader, buffer)):
                left -= file.write(buffer[:size])
        except zstandard.ZstdError as error:
            raise MalformedImageError(f"the image does not decompress: {error}") from error
    if left:
        raise MalformedImageError(f"the image does not hold {size_bytes} bytes")


def _read(reader: zstandard.ZstdDecompressionReader, buffer: memoryview) -> int:
    return reader.readinto(buffer)  # pyright: ignore[reportUnknownMemberType] - zstandard's stub lacks the buffer's type
