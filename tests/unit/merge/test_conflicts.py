"""The journal: nothing twice, nothing for ever, nothing forgotten that must not be."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from membridge.errors import NotFoundError, UnsupportedFormatError
from membridge.merge import conflicts
from membridge.merge.conflicts import Journal, Lost, row_payload
from tests.fixtures.databases import execute


def lost(title: str) -> Lost:
    return Lost("observations", ("m", 1), {"title": "kept"}, {"title": title, "blob": b"\xff"}, "node-a", "ours")


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    """An empty journal."""
    return Journal(tmp_path / "new folder" / "journal.db")


def test_a_conflict_is_kept_once_and_shown_newest_first(journal: Journal) -> None:
    assert journal.add_conflicts([lost("one"), lost("two"), lost("one")]) == 2
    assert journal.add_conflicts([lost("two")]) == 0

    newest, oldest = journal.conflicts()

    assert (newest.lost.row, oldest.lost.row) == ({"title": "two", "blob": "x'ff'"}, {"title": "one", "blob": "x'ff'"})
    assert (newest.table, newest.key, newest.kept.origin, newest.lost.origin) == (
        "observations",
        ["m", 1],
        "node-a",
        "ours",
    )
    assert len(journal.conflicts(limit=1)) == 1
    assert journal.counts().conflicts == 2


def test_the_same_thing_set_aside_again_is_another_attempt(journal: Journal) -> None:
    first = journal.quarantine("proposal", "proposal 1", "damaged", b"payload")
    second = journal.quarantine("proposal", "proposal 1", "still damaged", b"payload")

    (item,) = journal.quarantined()
    assert first == second == item.id
    assert (item.attempts, item.reason) == (2, "still damaged")
    assert journal.payload(first) == b"payload"


def test_a_dropped_proposal_is_forgotten_and_a_dropped_row_is_not_shown(journal: Journal) -> None:
    proposal = journal.quarantine("proposal", "p", "r", b"x")
    payload = row_payload("observations", {"title": "t"})
    row = journal.quarantine("row", "observations", "r", payload)

    journal.drop(proposal)
    journal.drop(row)

    assert journal.quarantined() == []
    assert journal.counts().quarantined == 0
    assert journal.holds_row(payload)
    with pytest.raises(NotFoundError):
        journal.payload(proposal)
    with pytest.raises(NotFoundError):
        journal.drop(proposal)


def test_a_row_taken_in_after_all_is_forgotten(journal: Journal) -> None:
    payload = row_payload("observations", {"title": "t"})
    journal.quarantine("row", "observations", "r", payload)
    held = journal.holds_rows()

    journal.resolve([payload])

    assert held
    assert not journal.holds_rows()


def test_the_journal_is_bounded_but_never_forgets_that_a_row_is_set_aside(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conflicts, "MAX_ENTRIES", 3)
    payloads = [row_payload("observations", {"title": n}) for n in range(6)]
    for payload in payloads:
        journal.quarantine("row", "observations", "r", payload)
    journal.add_conflicts([lost(str(n)) for n in range(9)])

    assert journal.counts() == conflicts.Counts(conflicts=3, quarantined=3)
    assert all(journal.holds_row(payload) for payload in payloads)


def test_large_entries_are_bounded_by_their_bytes(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conflicts, "MAX_BYTES", 250)
    for n in range(5):
        journal.quarantine("proposal", "p", "r", bytes([n]) * 100)

    assert journal.counts().quarantined == 2


def test_the_journal_is_there_again_after_a_restart(tmp_path: Path) -> None:
    first = Journal(tmp_path / "journal.db")
    first.add_conflicts([lost("one")])
    first.close()

    again = Journal(tmp_path / "journal.db")

    assert again.counts().conflicts == 1
    again.close()


def test_a_journal_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    execute(tmp_path / "journal.db", "PRAGMA user_version = 99")

    with pytest.raises(UnsupportedFormatError):
        Journal(tmp_path / "journal.db")


def test_of_many_that_make_the_journal_at_once_all_succeed(tmp_path: Path) -> None:
    for number in range(20):
        start = threading.Barrier(4)

        def made(path: Path = tmp_path / str(number) / "journal.db", start: threading.Barrier = start) -> int:
            start.wait(10.0)
            journal = Journal(path)
            try:
                return journal.counts().conflicts
            finally:
                journal.close()

        with ThreadPoolExecutor(4) as pool:
            assert [one.result() for one in [pool.submit(made) for _ in range(4)]] == [0] * 4
