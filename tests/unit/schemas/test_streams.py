"""Streams: each bounded in bytes and age, each with subjects of its own."""

import pytest

from schemas import streams
from schemas.streams import Retention, Stream

ALL = pytest.mark.parametrize("stream", streams.ALL, ids=lambda stream: stream.name)


def test_every_declared_stream_is_in_the_list_once() -> None:
    declared = [value for value in vars(streams).values() if isinstance(value, Stream)]

    listed = [*streams.ALL, *streams.RUNTIME, *streams.WEB]
    assert sorted(stream.name for stream in listed) == sorted(stream.name for stream in declared)


@ALL
def test_a_stream_is_bounded(stream: Stream) -> None:
    assert 0 < stream.max_bytes <= 64 << 20
    assert 0 < stream.max_age <= 90 * streams.DAY
    assert stream.subjects


@ALL
def test_a_streams_name_is_upper_case_without_what_a_name_may_not_hold(stream: Stream) -> None:
    assert stream.name.isalpha()
    assert stream.name.isupper()


def test_no_subject_is_kept_by_two_streams() -> None:
    subjects = [subject for stream in streams.ALL for subject in stream.subjects]

    assert len(subjects) == len(set(subjects))


def test_work_is_forgotten_only_when_it_is_acknowledged() -> None:
    assert streams.PROPOSALS.retention is Retention.WORK_QUEUE
    assert streams.JOBS.per_subject == 1
