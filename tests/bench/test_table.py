"""The table says what was measured, and does not flatter."""

from pathlib import Path

import pytest

from tests.bench.peers import Litestream, WholeFile
from tests.bench.results import Ours
from tests.bench.s3 import uploaded
from tests.bench.table import markdown, page, rows

LITESTREAM = Litestream(
    first_copy_seconds=2.0,
    first_copy_bytes=33_000_000,
    snapshot_seconds=3.0,
    increment_seconds=0.1,
    level_0_bytes=180_000,
    restore_seconds=1.0,
)
OLD = WholeFile(seconds=3.0, uploaded_bytes=55_000_000)
OURS = Ours(
    push_seconds=0.4,
    push_bytes=120_000,
    full_push_seconds=2.5,
    full_push_bytes=20_000_000,
    cold_pull_seconds=1.004,
    delta_pull_seconds=0.2,
    commit_to_row_seconds=5.9,
    idle_rss_bytes=39 << 20,
    idle_rss_after_pushes_bytes=41 << 20,
    sealed_push_seconds=0.5,
    sealed_push_bytes=121_000,
    sealed_full_push_seconds=2.6,
    sealed_cold_pull_seconds=1.1,
    sealed_delta_pull_seconds=0.3,
)


def test_a_missed_goal_is_shown_as_missed_even_when_rounding_hides_it() -> None:
    lines = markdown(rows(OURS, LITESTREAM, OLD)).splitlines()

    missed = [line.split("|")[1].strip() for line in lines if "**no**" in line]
    assert missed == [
        "push after 10 new observations",  # bytes
        "cold pull, whole database",
        "idle RSS after ten pushes to S3",
    ]


@pytest.mark.parametrize("ours", [OURS, None], ids=["everything", "references alone"])
def test_every_line_has_the_same_width(ours: Ours | None) -> None:
    assert len({len(line) for line in markdown(rows(ours, LITESTREAM, OLD)).splitlines()}) == 1


def test_the_page_names_the_command_the_day_and_the_machine(tmp_path: Path) -> None:
    database = tmp_path / "db"
    database.write_bytes(bytes(3 << 20))

    text = page(rows(OURS, LITESTREAM, OLD), database, "2026-11-20")

    assert "`just bench` on 2026-11-20" in text
    assert "The database has 3 MiB" in text
    assert "- memory: " in text


def test_uploaded_counts_what_is_new_or_changed() -> None:
    assert uploaded({"a": 1, "b": 2, "gone": 4}, {"a": 1, "b": 3, "c": 5}) == 8
