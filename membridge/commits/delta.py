"""The changed pages between two database files, as bytes.

Pure: looks at two page images and a stream of bytes, never at files. A delta may only be applied to the exact image it
was made against; both sha256 sums stand in its header and the caller checks the result's.

Form: `MBDELTA1`, page size (u32 LE), page count of the result (u32 LE), sha256 of the parent, that of the result, then
segments of at most SEGMENT_BYTES: number of pages (u32), length of the frame (u32), the page numbers (u32 each), a zstd
frame of the pages. The frame's dictionary is the parent's versions of those pages, so a page in which one row changed
costs some bytes. A segment of zero pages ends the delta.
"""

import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import zstandard

MAGIC = b"MBDELTA1"
_HEADER = struct.Struct("<8sII32s32s")
_SEGMENT = struct.Struct("<II")

#: Bytes of pages in one segment: bounds what is in memory at once to about 3 x 4 MiB at SQLite's default page size.
SEGMENT_BYTES = 4 << 20
#: Bytes compared at once before single pages are looked at.
BLOCK_BYTES = 1 << 20
#: SQLite's bounds (file format, section 1.3.2 and limits).
PAGE_SIZES = frozenset(1 << bit for bit in range(9, 17))
MAX_PAGES = 4_294_967_294
#: zstd level: deltas are small, so a slow level costs milliseconds.
LEVEL = 12
#: What a frame may be longer than its content: incompressible pages and zstd's own headers.
FRAME_SLACK_BYTES = 1 << 16


class Image(Protocol):
    """A database file's bytes, sliceable without being in memory (an mmap) or in it (bytes)."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: slice, /) -> bytes: ...


class MalformedDeltaError(ValueError):
    """Bytes that are not a delta, or one for another parent."""


@dataclass(frozen=True, slots=True)
class Header:
    """What a delta says of itself; the sums are raw 32 bytes."""

    page_size: int
    page_count: int
    parent: bytes
    result: bytes


@dataclass(frozen=True, slots=True)
class Page:
    """A page of the result: its number from 0, and its content."""

    number: int
    content: bytes


def diff(parent: Image, result: Image, page_size: int) -> list[int]:
    """Return the numbers of the pages of `result` that differ from `parent` or lie beyond its end, in order."""
    changed: list[int] = []
    block = max(BLOCK_BYTES // page_size, 1) * page_size
    for start in range(0, len(result), block):
        theirs, ours = parent[start : start + block], result[start : start + block]
        if theirs == ours:
            continue
        changed.extend(
            (start + offset) // page_size
            for offset in range(0, len(ours), page_size)
            if theirs[offset : offset + page_size] != ours[offset : offset + page_size]
        )
    return changed


def encode(parent: Image, result: Image, header: Header, changed: list[int]) -> Iterator[bytes]:
    """Yield the delta that turns `parent` into `result`; `changed` is what `diff` returned for them."""
    size = header.page_size
    yield _HEADER.pack(MAGIC, size, header.page_count, header.parent, header.result)
    per_segment = max(SEGMENT_BYTES // size, 1)
    for start in range(0, len(changed), per_segment):
        numbers = changed[start : start + per_segment]
        content = b"".join(result[number * size : (number + 1) * size] for number in numbers)
        compressor = zstandard.ZstdCompressor(level=LEVEL, dict_data=_dictionary(parent, numbers, size))
        frame = compressor.compress(content)
        yield _SEGMENT.pack(len(numbers), len(frame))
        yield struct.pack(f"<{len(numbers)}I", *numbers)
        yield frame
    yield _SEGMENT.pack(0, 0)


class Reader:
    """Reads a delta from chunks of bytes of any size: first `header`, then `pages`."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._buffer = bytearray()
        magic, page_size, page_count, parent, result = _HEADER.unpack(self._take(_HEADER.size))
        if magic != MAGIC or page_size not in PAGE_SIZES or not 0 < page_count <= MAX_PAGES:
            raise MalformedDeltaError("not a delta")
        self.header = Header(page_size, page_count, parent, result)

    def pages(self, parent: Image) -> Iterator[Page]:
        """Yield the changed pages, in order; raise MalformedDeltaError when the bytes are not what they should be."""
        size = self.header.page_size
        while True:
            count, length = _SEGMENT.unpack(self._take(_SEGMENT.size))
            if count == 0:
                return
            if count > max(SEGMENT_BYTES // size, 1) or length > count * size + FRAME_SLACK_BYTES:
                raise MalformedDeltaError("a segment is too large")
            numbers = struct.unpack(f"<{count}I", self._take(count * 4))
            if max(numbers) >= self.header.page_count:
                raise MalformedDeltaError("a page lies beyond the end")
            content = _decompress(self._take(length), _dictionary(parent, numbers, size), count * size)
            for position, number in enumerate(numbers):
                yield Page(number, content[position * size : (position + 1) * size])

    def _take(self, count: int) -> bytes:
        while len(self._buffer) < count:
            chunk = next(self._chunks, None)
            if chunk is None:
                raise MalformedDeltaError("the delta ends too early")
            self._buffer += chunk
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken


def _dictionary(parent: Image, numbers: Sequence[int], size: int) -> zstandard.ZstdCompressionDict | None:
    old = b"".join(parent[number * size : (number + 1) * size] for number in numbers)
    # zstd takes a dictionary of less than eight bytes for none; a page has at least 512.
    return zstandard.ZstdCompressionDict(old, dict_type=zstandard.DICT_TYPE_RAWCONTENT) if old else None


def _decompress(frame: bytes, dictionary: zstandard.ZstdCompressionDict | None, expected: int) -> bytes:
    try:
        content = zstandard.ZstdDecompressor(dict_data=dictionary).decompress(frame, max_output_size=expected)
    except zstandard.ZstdError as error:
        raise MalformedDeltaError(f"a segment does not decompress: {error}") from error
    if len(content) != expected:
        raise MalformedDeltaError("a segment has the wrong length")
    return content
