"""Decoding bytes of strangers: the struct, or one error that says what is wrong."""

import contextlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import ErrorCode, ErrorReply
from schemas.leadership import SelectRequest
from schemas.node import Empty, NodePresence
from schemas.proposal import ProposalBundle
from schemas.snapshot import PushRequest, SnapshotRecord
from schemas.wire import MAX_BODY_BYTES, Wire, WireError, decode, encode, shortened
from tests.wire.golden import example, wire_types

KINDS = [kind for kind in wire_types().values() if issubclass(kind, Wire)]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(body=st.binary(max_size=400), kind=st.sampled_from(KINDS))
def test_arbitrary_bytes_are_decoded_or_refused(body: bytes, kind: type[Wire]) -> None:
    with contextlib.suppress(WireError):
        assert isinstance(decode(body, kind), kind)


@given(kind=st.sampled_from(KINDS), data=st.data())
def test_a_body_with_one_field_of_another_type_is_decoded_or_refused(kind: type[Wire], data: st.DataObject) -> None:
    fields = msgspec.json.decode(example(kind))
    name = data.draw(st.sampled_from(sorted(fields) or ["none"]))
    body = msgspec.json.encode(fields | {name: data.draw(JSON)})

    refusal = ""
    try:
        assert isinstance(decode(body, kind), kind)
    except WireError as error:
        refusal = str(error)
    assert not refusal or name in refusal


@given(kind=st.sampled_from(KINDS), cut=st.integers(min_value=1), flip=st.integers(min_value=0, max_value=255))
def test_a_damaged_body_is_decoded_or_refused(kind: type[Wire], cut: int, flip: int) -> None:
    body = bytearray(example(kind))
    body[cut % len(body)] ^= flip

    for damaged in (bytes(body), bytes(body[: cut % len(body)])):
        with contextlib.suppress(WireError):
            assert isinstance(decode(damaged, kind), kind)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_what_is_encoded_decodes_to_the_same(kind: type[Wire]) -> None:
    value = decode(example(kind), kind)

    assert decode(encode(value), kind) == value


def test_an_empty_body_is_the_empty_object() -> None:
    assert decode(b"", Empty) == Empty()
    assert decode(b"", PushRequest) == PushRequest()


def test_a_missing_field_is_named() -> None:
    with pytest.raises(WireError, match=r"^node is required$"):
        decode(b"{}", SelectRequest)


def test_an_ill_typed_field_is_named_with_its_path() -> None:
    with pytest.raises(WireError, match=r"^projects\[0\]\.role may not be 'king': choose one of primary"):
        decode(
            b'{"node":"a","version":"1","python":"3","os":"l","arch":"x",'
            b'"projects":[{"project":"a1b2c3d4e5f60718","name":"n","role":"king"}]}',
            NodePresence,
        )


def test_a_body_over_the_limit_is_refused_unread() -> None:
    with pytest.raises(WireError, match="over the limit"):
        decode(b" " * (MAX_BODY_BYTES + 1), Empty)
    with pytest.raises(WireError, match="over the limit of 3"):
        decode(b"null", Empty, limit=3)


def test_nesting_without_end_is_refused() -> None:
    depth = 200_000
    with pytest.raises(WireError):
        decode(b'{"rows":' + b"[" * depth + b"]" * depth + b"}", ProposalBundle)
    with pytest.raises(WireError):
        decode(b'{"x":' * depth + b"1" + b"}" * depth, Empty)


def test_a_row_keeps_text_bytes_and_numbers_apart() -> None:
    bundle = decode(
        b'{"project":"a1b2c3d4e5f60718","node":"a","base_seq":1,'
        b'"rows":[{"table":"t","row":{"i":9007199254740993,"f":1.0,"s":"x","n":null}}]}',
        ProposalBundle,
    )

    again = decode(encode(bundle), ProposalBundle)

    assert again.rows[0].row == {"i": 9007199254740993, "f": 1.0, "s": "x", "n": None}
    assert isinstance((again.rows[0].row or {})["f"], float)


def test_an_error_reply_says_its_code_in_words() -> None:
    assert b'"code":"head_moved"' in encode(ErrorReply(code=ErrorCode.HEAD_MOVED, message="m"))


@pytest.mark.parametrize("value", [-1, 1.5, "1", None])
def test_a_seq_is_a_whole_number_from_zero(value: object) -> None:
    body = msgspec.json.decode(example(SnapshotRecord)) | {"seq": value}

    with pytest.raises(WireError, match="seq"):
        decode(msgspec.json.encode(body), SnapshotRecord)


@pytest.mark.parametrize(("most", "shown"), [(5, "words"), (4, "wor…"), (1, "…")])
def test_a_shortened_text_shows_that_there_was_more(most: int, shown: str) -> None:
    assert shortened("words", most) == shown
