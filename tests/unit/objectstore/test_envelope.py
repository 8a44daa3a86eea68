"""What was sealed opens, under its name and key; whatever was done to the bytes in between is found."""

from io import BytesIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from membridge.errors import CorruptObjectError, MembridgeError, UnsupportedFormatError
from membridge.objectstore.encryption import envelope
from membridge.objectstore.encryption.envelope import CONTENT, FRAME, HEADER, ObjectCipher, content_size, frames_of
from membridge.objectstore.encryption.keys import Key, derived, new_key

KEY = new_key()
NAME = "projects/p/snapshots/1.zst"
#: Sizes at which a frame ends, begins, or is alone.
EDGES = [0, 1, CONTENT - 1, CONTENT, CONTENT + 1, 2 * CONTENT, 3 * CONTENT + 7]
THREE_FRAMES = b"".join(envelope.encrypt(BytesIO(bytes(range(250)) * 600), NAME, KEY))


def encrypt(content: bytes, name: str = NAME, key: Key = KEY) -> bytes:
    return b"".join(envelope.encrypt(BytesIO(content), name, key))


def decrypt(raw: bytes, name: str = NAME, key: Key = KEY) -> bytes:
    one = ObjectCipher(key, envelope.parse(raw, name), name)
    return b"".join(envelope.decrypt(BytesIO(raw[HEADER:]), one))


@pytest.mark.parametrize("size", EDGES)
def test_content_comes_back_and_its_size_is_known_from_outside(size: int) -> None:
    content = bytes(size)
    raw = encrypt(content)

    assert decrypt(raw) == content
    assert content_size(len(raw)) == size
    assert len(raw) == HEADER + frames_of(len(raw)) * envelope.TAG + size


@given(st.binary(max_size=2_000))
def test_no_content_shows_and_two_seals_of_it_differ(content: bytes) -> None:
    one, other = encrypt(content), encrypt(content)

    assert decrypt(one) == decrypt(other) == content
    assert one[HEADER:] != other[HEADER:]
    # The header has zeros where no passphrase made the key.
    assert len(content) < 8 or content not in one[HEADER:]


@settings(max_examples=300)
@given(st.integers(0, len(THREE_FRAMES) * 8 - 1))
def test_any_flipped_bit_is_found(at: int) -> None:
    raw = bytearray(THREE_FRAMES)
    raw[at // 8] ^= 1 << at % 8

    # A flip in the key's id names a key that nobody has: looked up before anything is opened.
    if HEADER - envelope.OBJECT_SALT > at // 8 >= 9:
        assert envelope.parse(bytes(raw), NAME) != envelope.parse(THREE_FRAMES, NAME)
    with pytest.raises((CorruptObjectError, UnsupportedFormatError)):
        decrypt(bytes(raw))


@given(st.integers(0, len(THREE_FRAMES) - 1))
def test_any_cut_is_found(size: int) -> None:
    with pytest.raises(CorruptObjectError):
        decrypt(THREE_FRAMES[:size])


@pytest.mark.parametrize("frames", [1, 2])
def test_a_cut_between_two_frames_is_found(frames: int) -> None:
    with pytest.raises(CorruptObjectError):
        decrypt(THREE_FRAMES[: HEADER + frames * FRAME])


@given(st.binary(min_size=1, max_size=100))
def test_anything_appended_is_found(more: bytes) -> None:
    for raw in (THREE_FRAMES, encrypt(bytes(CONTENT)), encrypt(b"")):
        with pytest.raises(CorruptObjectError):
            decrypt(raw + more)


@given(st.permutations(range(4)))
def test_frames_in_another_order_are_found(order: list[int]) -> None:
    raw = encrypt(bytes(4 * CONTENT))
    frames = [raw[HEADER + at * FRAME : HEADER + (at + 1) * FRAME] for at in order]
    if order == sorted(order):
        assert decrypt(raw[:HEADER] + b"".join(frames)) == bytes(4 * CONTENT)
        return
    with pytest.raises(CorruptObjectError):
        decrypt(raw[:HEADER] + b"".join(frames))


@given(st.lists(st.integers(0, 3), max_size=6))
def test_frames_left_out_or_repeated_are_found(chosen: list[int]) -> None:
    raw = encrypt(bytes(4 * CONTENT))
    again = raw[:HEADER] + b"".join(raw[HEADER + at * FRAME : HEADER + (at + 1) * FRAME] for at in chosen)
    if again != raw:
        with pytest.raises(CorruptObjectError):
            decrypt(again)


def test_frames_and_header_of_two_objects_do_not_mix() -> None:
    one, other = encrypt(bytes(2 * CONTENT)), encrypt(bytes(2 * CONTENT))

    for mixed in (one[:HEADER] + other[HEADER:], one[: HEADER + FRAME] + other[HEADER + FRAME :]):
        with pytest.raises(CorruptObjectError):
            decrypt(mixed)


def test_an_object_opens_under_its_own_name_alone() -> None:
    with pytest.raises(CorruptObjectError):
        decrypt(encrypt(b"of one"), name="projects/p/snapshots/2.zst")


def test_another_key_of_the_same_id_opens_nothing() -> None:
    with pytest.raises(CorruptObjectError):
        decrypt(encrypt(b"content"), key=new_key())


def test_an_empty_frame_after_a_full_one_is_no_end() -> None:
    raw = encrypt(bytes(CONTENT))
    header = envelope.parse(raw, NAME)
    one = ObjectCipher(KEY, header, NAME)
    forged = raw[:HEADER] + one.close(bytes(CONTENT), 0, last=False) + one.close(b"", 1, last=True)

    with pytest.raises(CorruptObjectError):
        decrypt(forged)


@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_refused_as_an_error_of_ours(raw: bytes) -> None:
    for body in (raw, envelope.MAGIC + raw, THREE_FRAMES[:HEADER] + raw):
        with pytest.raises(MembridgeError):
            decrypt(body)


@given(st.integers(0, 500_000_000))
def test_sizes_from_outside_never_fail(stored: int) -> None:
    assert 0 <= content_size(stored) <= stored
    assert frames_of(stored) >= 1


def test_the_derivation_is_rfc_5869s() -> None:
    # Appendix A.3: no salt, no info; the first 32 bytes.
    assert derived(b"\x0b" * 22, salt=b"", info=b"").hex() == (
        "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d"
    )
