"""What changed in a memory as a stream of rows."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import zstandard

from membridge.aio.deadline import Deadline
from membridge.claudemem.connection import open_live
from membridge.claudemem.tables import travelling_tables
from membridge.merge.memory_file import MemoryFile
from membridge.merge.row_delta import delta_of
from membridge.merge.row_stream import (
    BLOCK,
    MAGIC,
    Link,
    MalformedStreamError,
    Tail,
    decode,
    encode,
    origin_of,
    schema_of,
)
from membridge.merge.rows import Reader


def soon() -> Deadline:
    """Return a deadline that nothing here needs."""
    return Deadline.after(60.0)


def streamed(path: Path) -> bytes:
    """Return the delta that makes an empty memory what a live database is."""
    empty = path.with_name("empty.memory")
    with closing(MemoryFile(empty, deadline=soon())) as memory, open_live(path, deadline=soon()) as live:
        tables = travelling_tables(live)
        memory.know(schema_of(live), {name: origin_of(table) for name, table in tables.items()})
        keys = {
            name: [key for _, key in Reader(live, table).keys(-(1 << 63), (1 << 63) - 1) if key is not None]
            for name, table in tables.items()
        }
        return b"".join(encode(delta_of(memory, live, keys)))


def pieces(raw: bytes, size: int) -> Iterator[bytes]:
    """Yield bytes in pieces."""
    return (raw[at : at + size] for at in range(0, len(raw), size))


def test_a_stream_is_read_in_pieces_of_any_size(claude_mem_copy: Path) -> None:
    raw = streamed(claude_mem_copy)
    whole = list(decode([raw]))

    assert isinstance(whole[0], Link)
    assert isinstance(whole[-1], Tail)
    for size in (1, 7, 4_096, BLOCK):
        assert list(decode(pieces(raw, size))) == whole


@pytest.mark.parametrize("damage", ["cut off", "a byte", "its end is missing", "something else", "nothing"])
def test_a_stream_that_is_not_whole_is_refused(claude_mem_copy: Path, damage: str) -> None:
    raw = bytearray(streamed(claude_mem_copy))
    if damage == "cut off":
        del raw[-100:]
    elif damage == "a byte":
        raw[len(raw) // 2] ^= 0x10
    elif damage == "its end is missing":
        raw = bytearray(without_its_end(bytes(raw)))
    else:
        raw = bytearray(b"something else" if damage == "something else" else b"")

    with pytest.raises(MalformedStreamError):
        list(decode([bytes(raw)]))


def without_its_end(raw: bytes) -> bytes:
    """Return a stream that is compressed soundly but lacks its last message."""
    content = zstandard.ZstdDecompressor().decompressobj().decompress(raw[len(MAGIC) :])
    at, last = 0, 0
    while at < len(content):
        last, at = at, at + 4 + int.from_bytes(content[at : at + 4], "little")
    return MAGIC + zstandard.ZstdCompressor().compress(content[:last])
