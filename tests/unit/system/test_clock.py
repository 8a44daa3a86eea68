"""Instants: one form on the wire, read back exactly, and nothing guessed about a text without an offset."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from membridge.system import clock

MILLISECOND = timedelta(milliseconds=1)
ZONES = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
YEARS = {"min_value": datetime(1971, 1, 1), "max_value": datetime(9998, 1, 1)}  # noqa: DTZ001 - the zone is drawn too


@given(st.datetimes(**YEARS, timezones=ZONES))
def test_a_stamp_is_utc_and_reads_back_to_the_millisecond(at: datetime) -> None:
    text = clock.stamp(at)

    assert (len(text), text[-6:]) == (29, "+00:00")
    assert timedelta() <= at - clock.parse(text) < MILLISECOND
    assert clock.stamp(clock.parse(text)) == text


def test_a_stamp_takes_seconds_since_1970_and_is_now_without_any() -> None:
    before = clock.now()
    made = clock.parse(clock.stamp())

    assert clock.stamp(1_785_499_200.25) == "2026-07-31T12:00:00.250+00:00"
    assert clock.stamp(0) == "1970-01-01T00:00:00.000+00:00"
    assert before - MILLISECOND < made <= clock.now()


@pytest.mark.parametrize(
    "text", ["2026-01-31T18:00:00Z", "2026-01-31T19:00:00+01:00", "2026-01-31T18:00:00.000000000+00:00"]
)
def test_every_form_with_an_offset_is_read(text: str) -> None:
    assert clock.parse(text) == clock.known(text) == datetime(2026, 1, 31, 18, tzinfo=UTC)


@pytest.mark.parametrize("text", ["2026-01-31T18:00:00", "2026-01-31", "18:00", "yesterday", ""])
def test_a_text_without_an_offset_is_rejected(text: str) -> None:
    with pytest.raises(ValueError, match=r"offset|format|Invalid|isoformat"):
        clock.parse(text)
    assert clock.known(text) is None
    assert clock.local(text) == text


def test_nothing_is_no_instant() -> None:
    assert clock.known(None) is None
