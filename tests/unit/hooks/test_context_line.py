"""The line of a session start says how fresh the memory is, from which machine, or why not, and stays short."""

import pytest

from membridge.hooks.context_line import Freshness, line_of, with_titles
from schemas.identity import NodeId, canonical_id
from schemas.snapshot import SnapshotKind, SnapshotRecord

RECORD = SnapshotRecord(
    project=canonical_id("shared"),
    seq=12,
    epoch=1,
    parent_seq=11,
    kind=SnapshotKind.FULL,
    sha256="0" * 64,
    node=NodeId("pi"),
    created_at="2026-01-31T18:00:05+00:00",
    nonce="n",
)


def test_fresh_memory_has_its_time_and_its_machine() -> None:
    line = line_of(Freshness("shared", 12, RECORD))
    assert line.startswith("Membridge: this memory is up to date. It is snapshot 12 of 2026-0")
    assert line.endswith(" from pi.")


@pytest.mark.parametrize(
    ("freshness", "end"),
    [
        (Freshness("shared", 12, RECORD, "NATS is away"), "NATS is away. It is snapshot 12 of "),
        (Freshness("shared", 11, RECORD, "it took\ntoo long."), "it took too long. It is snapshot 11."),
        (Freshness("shared", 0, None, "NATS is away"), "NATS is away. This machine has not received a snapshot yet."),
    ],
)
def test_memory_that_may_be_old_says_why_and_what_it_is(freshness: Freshness, end: str) -> None:
    assert line_of(freshness).startswith(f"Membridge: this memory may be out of date: {end}")


def test_a_project_that_no_machine_has_shared_says_so() -> None:
    assert line_of(Freshness('my\n"x"')) == 'Membridge: no machine has shared a memory of "my "x"" yet.'


def test_nothing_makes_it_longer_than_a_few_hundred_characters() -> None:
    assert len(line_of(Freshness("p" * 5_000, 12, RECORD, "x" * 5_000))) < 500
    long = with_titles("line", ["t\n" * 5_000] * 50)
    assert (len(long.split("\n")), len(long)) == (12, pytest.approx(1_070, abs=60))


def test_without_titles_the_line_is_alone() -> None:
    assert with_titles("line", []) == "line"
