"""Deltas: whatever two images there are, the delta between them rebuilds one from the other and nothing else."""

import hashlib
import struct

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from membridge.commits import delta
from membridge.commits.delta import Header, MalformedDeltaError, Reader

PAGE = 512


def images() -> st.SearchStrategy[bytes]:
    page = st.one_of(st.binary(min_size=PAGE, max_size=PAGE), st.just(b"\0" * PAGE), st.just(b"page" * (PAGE // 4)))
    return st.lists(page, min_size=1, max_size=24).map(b"".join)


def packed(parent: bytes, result: bytes, page_size: int = PAGE) -> bytes:
    header = Header(
        page_size, len(result) // page_size, hashlib.sha256(parent).digest(), hashlib.sha256(result).digest()
    )
    return b"".join(delta.encode(parent, result, header, delta.diff(parent, result, page_size)))


def rebuilt(parent: bytes, body: bytes, chunk: int = 7) -> bytes:
    reader = Reader(body[start : start + chunk] for start in range(0, len(body), chunk))
    size = reader.header.page_size * reader.header.page_count
    image = bytearray(parent[:size].ljust(size, b"\0"))
    for page in reader.pages(parent):
        image[page.number * reader.header.page_size : (page.number + 1) * reader.header.page_size] = page.content
    return bytes(image)


@given(parent=images(), result=images(), chunk=st.integers(1, 5000))
def test_a_delta_rebuilds_any_result_from_its_parent(parent: bytes, result: bytes, chunk: int) -> None:
    assert rebuilt(parent, packed(parent, result), chunk) == result


def test_equal_images_have_an_empty_delta() -> None:
    image = b"a" * PAGE * 3
    assert delta.diff(image, image, PAGE) == []
    assert len(packed(image, image)) < 100


def test_one_changed_byte_in_many_pages_costs_one_small_page() -> None:
    parent = bytes(hashlib.sha256(b"seed").digest()) * (4096 * 300 // 32)
    result = bytearray(parent)
    result[4096 * 137 + 5] ^= 1
    body = packed(parent, bytes(result), 4096)
    assert delta.diff(parent, bytes(result), 4096) == [137]
    assert len(body) < 250


def test_a_large_change_is_cut_into_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delta, "SEGMENT_BYTES", PAGE * 2)
    parent, result = b"a" * PAGE * 9, b"b" * PAGE * 9
    assert rebuilt(parent, packed(parent, result)) == result


@given(st.binary(max_size=400))
def test_arbitrary_bytes_are_refused_and_never_crash(body: bytes) -> None:
    with pytest.raises(MalformedDeltaError):
        list(Reader([body]).pages(b"x" * PAGE))


@given(parent=images(), result=images(), position=st.integers(0, 10_000), flip=st.integers(1, 255))
def test_a_flipped_byte_is_found_by_the_delta_or_by_the_sum(
    parent: bytes, result: bytes, position: int, flip: int
) -> None:
    body = bytearray(packed(parent, result))
    body[position % len(body)] ^= flip
    expected = hashlib.sha256(result).digest()
    try:
        reader = Reader([bytes(body)])
        pages = list(reader.pages(parent))
    except MalformedDeltaError:
        return
    size = reader.header.page_size * reader.header.page_count
    if size > 1 << 24:
        return  # the caller compares the size with the commit record's before it writes anything
    image = bytearray(parent[:size].ljust(size, b"\0"))
    for page in pages:
        image[page.number * reader.header.page_size : (page.number + 1) * reader.header.page_size] = page.content
    damaged = hashlib.sha256(image).digest() != expected or reader.header.result != expected
    assert damaged or bytes(image) == result


@pytest.mark.parametrize(
    ("field", "value"),
    [("magic", b"XXDELTA1"), ("page size", 500), ("page count", 0)],
)
def test_a_header_that_cannot_be_is_refused(field: str, value: object) -> None:
    magic = value if field == "magic" else delta.MAGIC
    size = value if field == "page size" else PAGE
    count = value if field == "page count" else 1
    with pytest.raises(MalformedDeltaError):
        Reader([struct.pack("<8sII32s32s", magic, size, count, b"", b"")])


def test_a_segment_that_claims_too_much_is_refused_before_it_is_read() -> None:
    head = struct.pack("<8sII32s32s", delta.MAGIC, PAGE, 1, b"", b"")
    too_many = head + struct.pack("<II", 2**31, 10)
    too_long = head + struct.pack("<II", 1, 2**31)
    beyond = head + struct.pack("<III", 1, 4, 7) + b"zstd"
    for body in (too_many, too_long, beyond):
        with pytest.raises(MalformedDeltaError):
            list(Reader([body]).pages(b""))


def test_a_frame_of_the_wrong_length_is_refused() -> None:
    frame = zstandard.ZstdCompressor().compress(b"short")
    head = struct.pack("<8sII32s32s", delta.MAGIC, PAGE, 1, b"", b"")
    body = head + struct.pack("<III", 1, len(frame), 0) + frame
    with pytest.raises(MalformedDeltaError, match="wrong length"):
        list(Reader([body]).pages(b""))
