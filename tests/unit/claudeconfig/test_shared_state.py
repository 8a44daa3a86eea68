"""A state's bytes: read back as written, and bounded whatever they claim."""

import msgspec
import pytest
import zstandard

from membridge.claudeconfig import shared_state
from membridge.errors import CorruptObjectError, UnsupportedFormatError
from schemas.claude_config import ConfigFile, ConfigState
from schemas.identity import NodeId, canonical_id

STATE = ConfigState(
    project=canonical_id("p"),
    seq=1,
    nonce="n",
    node=NodeId("a"),
    created_at="2026-01-31T18:00:00.000+00:00",
    files=[ConfigFile(path="bin/x", executable=True, body=bytes(range(256)))],
)


def test_a_state_is_read_as_it_was_written() -> None:
    assert shared_state.unpack(shared_state.pack(STATE), "x") == STATE


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no zstd",
        shared_state.pack(STATE)[:-9],
        zstandard.compress(b"[]"),
        zstandard.compress(b"{"),
        zstandard.compress(msgspec.json.encode({"format": 1, "project": "../.."})),
        # A few kilobytes that would be 64 MiB.
        zstandard.compress(b" " * (64 << 20)),
    ],
    ids=["empty", "other bytes", "cut", "a list", "broken", "fields", "bomb"],
)
def test_other_bytes_are_no_state(body: bytes) -> None:
    with pytest.raises(CorruptObjectError):
        shared_state.unpack(body, "object x")


def test_a_newer_format_is_named_before_its_fields_are_read() -> None:
    with pytest.raises(UnsupportedFormatError, match="has format 9"):
        shared_state.unpack(zstandard.compress(b'{"format": 9, "everything": "else"}'), "object x")
