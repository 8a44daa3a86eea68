"""Events: told apart by their type; one that is not known is no error."""

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.events import Event, LeadershipChanged, SnapshotCommitted, decode_event, encode_event
from schemas.wire import MAX_BODY_BYTES
from tests.wire.golden import example

KINDS = get_args(Event)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_an_event_comes_back_as_what_it_was(kind: type[Event]) -> None:
    event = decode_event(example(kind))

    assert isinstance(event, kind)
    assert decode_event(encode_event(event)) == event


def test_the_type_is_named_with_its_version() -> None:
    event = LeadershipChanged.__struct_config__

    assert (event.tag_field, event.tag) == ("type", "membridge.event.v1.leadership_changed")
    assert len({kind.__struct_config__.tag for kind in KINDS}) == len(KINDS)
    assert all(kind.__struct_config__.tag.startswith("membridge.event.v1.") for kind in KINDS)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b'{"type":"membridge.event.v2.snapshot_committed"}',
        b'{"type":"membridge.event.v1.snapshot_committed"}',
        b'{"type":7}',
        b"\xff\xfe",
        b"[" * 200_000,
        b" " * (MAX_BODY_BYTES + 1),
    ],
    ids=lambda body: repr(body[:50]),
)
def test_what_is_no_known_event_is_none(body: bytes) -> None:
    assert decode_event(body) is None


def test_an_event_too_large_to_be_one_is_not_read() -> None:
    assert decode_event(example(SnapshotCommitted)) is not None
    assert decode_event(example(SnapshotCommitted) + b" " * MAX_BODY_BYTES) is None


@given(st.binary(max_size=300))
def test_arbitrary_bytes_never_raise(body: bytes) -> None:
    assert decode_event(body) is None
