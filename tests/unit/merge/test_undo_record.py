"""The file of an undo record: what was cut off never happened, anything else that is wrong is damage."""

from pathlib import Path

import pytest

from membridge.errors import DatabaseCorruptError
from membridge.merge import undo_record
from membridge.merge.former import Content, Former, combined, of_one_write
from membridge.merge.undo_record import Facts, Header

HEADER = Header(Facts("2026-01-01", {"observations": 7}), previous="before")


def row(number: int, title: str | None, mark: bytes = b"m", *, again: bool = False) -> Former:
    """Return an entry of an observation."""
    content = None if title is None else Content({"title": title}, {"text": b"\0"}, {"subtitle": b"\xff"})
    return Former("observations", number, content, mark, again)


@pytest.fixture
def record(tmp_path: Path) -> Path:
    """A record of two transactions."""
    path = tmp_path / "one.undo"
    undo_record.begin(path, HEADER)
    undo_record.append(path, [row(1, "one"), row(2, None)])
    undo_record.append(path, [row(3, "three")])
    return path


def test_what_is_written_is_read(record: Path) -> None:
    header, blocks = undo_record.read(record)
    assert header == HEADER
    assert blocks == [[row(1, "one"), row(2, None)], [row(3, "three")]]
    known = undo_record.outline(record)
    assert (known.header, known.rows) == (HEADER, 3)
    assert undo_record.last(record) == [row(3, "three")]
    assert record.stat().st_mode & 0o777 == 0o600


def test_cut_off_anywhere_it_holds_the_transactions_before(record: Path) -> None:
    whole = record.read_bytes()
    known = undo_record.outline(record)
    for size in range(known.tail, len(whole)):
        record.write_bytes(whole[:size])
        assert undo_record.read(record)[1] == [[row(1, "one"), row(2, None)]]
    # What a power cut leaves of a file is not always shorter.
    record.write_bytes(whole[: known.tail + 30] + bytes(len(whole) - known.tail - 30))
    assert undo_record.last(record) == [row(1, "one"), row(2, None)]
    undo_record.append(record, [row(4, "four")])
    assert undo_record.read(record)[1] == [[row(1, "one"), row(2, None)], [row(4, "four")]]


def test_a_changed_byte_before_the_end_is_damage(record: Path) -> None:
    whole = record.read_bytes()
    undo_record.without_last(record)
    start = undo_record.outline(record).tail
    for place in (0, 20, start + 9, start + 40):
        record.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(DatabaseCorruptError, match=r"the undo record .* is damaged"):
            undo_record.read(record)


def test_the_last_transaction_can_be_removed_until_none_is_left(record: Path) -> None:
    undo_record.without_last(record)
    assert undo_record.read(record)[1] == [[row(1, "one"), row(2, None)]]
    undo_record.without_last(record)
    assert undo_record.read(record) == (HEADER, [])
    assert undo_record.last(record) == []
    undo_record.write(record, HEADER, [row(5, "five")])
    assert undo_record.read(record) == (HEADER, [[row(5, "five")]])


def test_of_several_records_the_oldest_content_counts_and_the_newest_mark() -> None:
    older = [row(1, "first"), row(2, None, b"a")]
    newer = [row(1, "second", b"n"), row(2, "came", b""), row(3, "third")]
    found = combined([older, newer])
    assert found == {
        ("observations", 1): row(1, "first", b"n"),
        ("observations", 2): row(2, None, b""),
        ("observations", 3): row(3, "third"),
    }
    # A row that was recorded twice was rolled back once; one that was written again has only another mark.
    assert of_one_write([row(1, "stale"), row(1, "true"), row(1, None, b"z", again=True)]) == {
        ("observations", 1): row(1, "true", b"z")
    }


def test_another_database_is_told_by_its_first_migration_and_by_rowids_that_it_has_not_given() -> None:
    facts = HEADER.facts
    assert Facts("2026-01-01", {"observations": 9, "user_prompts": 1}).continues(facts)
    assert not Facts("2026-01-01", {"observations": 6}).continues(facts)
    assert not Facts("2026-01-02", {"observations": 9}).continues(facts)
