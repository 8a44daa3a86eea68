"""Frames survive the pipe whole or not at all, whatever arrives; errors keep their class."""

import asyncio
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from membridge import errors
from membridge.errors import LeaseHeldError, MembridgeError, StoreUnavailableError
from membridge.objectstore.protocol import MAX_GET_BYTES, ObjectInfo
from membridge.objectstore.s3 import frames
from membridge.objectstore.s3.frames import Answer, Ask, S3Wire


async def read_back(raw: bytes) -> Ask | None:
    reader = asyncio.StreamReader()
    reader.feed_data(raw)
    reader.feed_eof()
    return await frames.read(reader, Ask)


async def test_messages_come_out_in_the_order_they_went_in() -> None:
    sent = [Ask(id=1, verb="put", key="k", body=b"\0\xff"), Ask(id=2, verb="list", after="a"), Ask(id=3, verb="cancel")]
    reader = asyncio.StreamReader()
    reader.feed_data(b"".join(frames.packed(ask) for ask in sent))
    reader.feed_eof()
    assert [await frames.read(reader, Ask) for _ in sent] == sent
    assert await frames.read(reader, Ask) is None


async def test_the_largest_body_fits_a_frame() -> None:
    ask = Ask(id=1, verb="put", key="k" * 512, body=bytes(MAX_GET_BYTES))
    assert await read_back(frames.packed(ask)) == ask


async def test_a_listing_and_the_options_come_out_equal() -> None:
    answer = Answer(id=1, items=[ObjectInfo("a", 1, "2026-01-01T00:00:00+00:00"), ObjectInfo("b", 0)])
    wire = S3Wire(endpoint="http://h", access_key="a", secret_key="s", bucket="b", region="r")
    reader = asyncio.StreamReader()
    reader.feed_data(frames.packed(answer) + frames.packed(wire))
    assert await frames.read(reader, Answer) == answer
    assert await frames.read(reader, S3Wire) == wire


async def test_a_cut_frame_is_the_end_of_the_pipe() -> None:
    whole = frames.packed(Ask(id=1, verb="get", key="k"))
    assert [await read_back(whole[:size]) for size in range(len(whole))] == [None] * len(whole)


async def test_a_length_over_the_bound_is_refused_before_it_is_read() -> None:
    assert await read_back(struct.pack(">I", frames.MAX_FRAME + 1) + b"x") is None


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_a_message_or_the_end(raw: bytes) -> None:
    found = asyncio.run(read_back(struct.pack(">I", len(raw)) + raw))
    assert found is None or isinstance(found, Ask)


@pytest.mark.parametrize(
    "kind",
    [errors.ObjectExistsError, errors.ObjectMissingError, errors.CredentialsError, errors.DiskFullError,
     errors.DeadlineExceededError, errors.StoreUnavailableError, errors.TooLargeError, errors.CorruptObjectError,
     errors.FileAccessError],
)  # fmt: skip
def test_an_error_keeps_its_class_its_sentence_and_its_remedy(kind: type[MembridgeError]) -> None:
    came = frames.raised(frames.refusal(7, kind("what happened", remedy="what to do")))
    assert (type(came), came.message, came.remedy) == (kind, "what happened", "what to do")


def test_an_error_that_cannot_be_rebuilt_is_still_one_of_ours() -> None:
    held = frames.raised(frames.refusal(1, LeaseHeldError("held", owner="a")))
    assert (type(held), held.message) == (MembridgeError, "held")
    for name in ("NoSuchError", "ClassVar", "RemoteError", "TABLE"):
        assert type(frames.raised(Answer(id=1, error=name, message="m"))) is StoreUnavailableError


def test_a_path_means_the_same_file_in_another_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert frames.absolute(Path("a b")) == str(tmp_path / "a b")
