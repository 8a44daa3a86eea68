"""Numbers and foreign text as people read them."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from membridge.cli import units

NOW = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"), (999, "999 B"), (1000, "1.0 KB"), (88_123, "88.1 KB"), (999_960, "1.0 MB"),
        (53_000_000, "53.0 MB"), (2_500_000_000, "2.5 GB"), (5_000_000_000_000, "5000.0 GB"),
    ],
)  # fmt: skip
def test_sizes(count: int, text: str) -> None:
    assert units.size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.42, "0.4 s"), (42, "42 s"), (180, "3 min"), (7200, "2 h"), (432_000, "5 days")]
)
def test_durations(seconds: float, text: str) -> None:
    assert units.duration(seconds) == text


@pytest.mark.parametrize(
    ("before", "text"), [(0.2, "now"), (4, "4 s ago"), (45, "45 s ago"), (300, "5 min ago"), (-90, "in 2 min")]
)
def test_times_ago(before: float, text: str) -> None:
    assert units.ago((NOW - timedelta(seconds=before)).isoformat(), NOW) == text


@pytest.fixture
def in_kolkata(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine whose local time is five and a half hours ahead."""
    monkeypatch.setenv("TZ", "XST-5:30")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("in_kolkata")
def test_a_time_is_local_with_its_zone_and_exact_where_a_command_takes_it() -> None:
    at = "2026-05-01T12:00:05.123456+00:00"

    assert units.when(at) == "2026-05-01T17:30:05+05:30"
    assert units.when(at, exact=True) == "2026-05-01T17:30:05.123+05:30"
    assert units.when("whenever") == "whenever"


@pytest.mark.usefixtures("in_kolkata")
@pytest.mark.parametrize(
    ("written", "state"),
    [
        ("2026-05-01T17:30", "@2026-05-01T17:30:00+05:30"),
        ("2026-05-01 17:30:05", "@2026-05-01T17:30:05.999999+05:30"),
        ("2026-05-01T17:30:05.123+05:30", "@2026-05-01T17:30:05.123999+05:30"),
        ("2026-05-01T12:00:05.123456Z", "@2026-05-01T17:30:05.123456+05:30"),
    ],
)
def test_a_time_that_is_written_is_local_and_the_whole_of_what_it_names(written: str, state: str) -> None:
    assert units.given_as_state(written) == state


@given(st.datetimes(min_value=datetime(1971, 1, 1), max_value=datetime(2200, 1, 1), timezones=st.just(UTC)))  # noqa: DTZ001 - the zone comes with it
def test_the_time_that_is_shown_of_a_snapshot_names_it(made: datetime) -> None:
    shown = units.when(made.isoformat(), exact=True)

    named = datetime.fromisoformat(units.given_as_state(shown).removeprefix("@"))

    assert timedelta(0) <= named - made < timedelta(milliseconds=1)


@pytest.mark.parametrize("text", ["", "yesterday", "2026-13-01", "0001-01-01T00:00:00+14:00"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - that is all it says
        units.given(text)


def test_a_time_without_zone_is_shown_as_it_is() -> None:
    assert units.ago("2026-05-01T11:00:00", NOW) == units.when("2026-05-01T11:00:00") == "2026-05-01T11:00:00"
    assert units.took("2026-05-01T11:00:00", "2026-05-01T11:00:05+00:00") == ""


@given(st.text())
def test_what_is_no_time_comes_back_as_it_is(text: str) -> None:
    assert isinstance(units.ago(text, NOW), str)
    assert isinstance(units.took(text, text), str)


def test_the_time_between_two_instants() -> None:
    assert units.took("2026-05-01T11:00:00+00:00", "2026-05-01T11:00:02+00:00") == "2.0 s"
    assert units.took("2026-05-01T11:00:00+00:00", None) == ""


def test_counts_agree_with_their_noun() -> None:
    assert [units.count(number, "row") for number in (0, 1, 1234)] == ["0 rows", "1 row", "1,234 rows"]


def test_foreign_text_cannot_steer_the_terminal() -> None:
    assert units.printable("a\x1b[2J\rb\x9b\tc\nd ünï") == "a?[2J?b?\tc\nd ünï"
