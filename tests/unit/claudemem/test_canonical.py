"""The canonical form of a row never changes under its version, and is the same for what SQLite takes for the same."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from membridge.claudemem import canonical
from membridge.claudemem.memory import memory_rows, memory_sum
from membridge.claudemem.tables import Reference, Table
from tests.fixtures.databases import NEW, OLD, execute, make_database

VECTORS: dict[str, Any] = json.loads((Path(__file__).parents[2] / "data" / "rows-1.json").read_bytes())


def table(name: str, references: tuple[str, ...] = ()) -> Table:
    """Return a table as the form looks at it."""
    pointed = {column: Reference("sdk_sessions", ()) for column in references}
    return Table(name, (), False, (), {}, (), pointed, frozenset())  # noqa: FBT003 - it is the third of eight


def value_of(given: Any) -> Any:
    """Return a value that JSON cannot hold as it is."""
    if isinstance(given, dict):
        return bytes.fromhex(given["blob"]) if "blob" in given else float(given["real"])
    return given


@pytest.mark.parametrize("vector", VECTORS["rows"], ids=lambda vector: vector["about"])
def test_a_row_has_these_bytes(vector: dict[str, Any]) -> None:
    values = {name: value_of(value) for name, value in vector["values"].items()}
    written = canonical.encode(table(vector["table"], tuple(vector["references"])), values)

    assert written.hex() == vector["bytes"]
    assert canonical.total([written]).hex() == vector["sum"]


def test_a_sum_is_of_all_rows_in_any_order() -> None:
    rows = [bytes.fromhex(vector["bytes"]) for vector in VECTORS["rows"]]

    assert canonical.total(rows).hex() == canonical.total(reversed(rows)).hex() == VECTORS["sum"]
    assert canonical.total([]) == bytes(32)


def test_the_order_of_columns_null_and_whole_reals_make_no_difference() -> None:
    one = canonical.encode(table("t"), {"a": 1, "b": "x", "c": None})

    assert one == canonical.encode(table("t"), {"b": "x", "a": 1.0})
    assert one != canonical.encode(table("t"), {"b": "x", "a": 1.5})
    assert one != canonical.encode(table("t"), {"b": b"x", "a": 1})
    assert one != canonical.encode(table("u"), {"b": "x", "a": 1})


def test_a_real_that_no_integer_is_equal_to_stays_one() -> None:
    assert canonical.encode(table("t"), {"a": 2.0**53}) == canonical.encode(table("t"), {"a": 2**53})
    for value in (2.0**54, math.inf, 0.5):
        assert canonical.encode(table("t"), {"a": value})[-9:-8] == b"\xcb"


@pytest.mark.parametrize("version", [NEW, OLD])
def test_a_memory_has_one_sum_whatever_its_file_looks_like(tmp_path: Path, version: str) -> None:
    one, other = (make_database(tmp_path / name / "claude-mem.db", version=version) for name in ("one", "other"))
    execute(
        other, "UPDATE observations SET id = id + 5000; PRAGMA journal_mode = DELETE; PRAGMA page_size = 1024; VACUUM"
    )
    execute(other, "ALTER TABLE observations ADD COLUMN mood TEXT")

    assert memory_sum(one) == memory_sum(other)

    execute(other, "UPDATE observations SET mood = 'new' WHERE rowid = (SELECT min(rowid) FROM observations)")
    assert memory_sum(one) != memory_sum(other)
    assert len(memory_rows(one)["observations"] - memory_rows(other)["observations"]) == 1


def test_a_rowid_is_read_as_what_it_points_at(claude_mem_copy: Path) -> None:
    before = memory_sum(claude_mem_copy)
    execute(
        claude_mem_copy,
        "PRAGMA foreign_keys = OFF; UPDATE user_prompts SET session_db_id = session_db_id + 9000; "
        "UPDATE sdk_sessions SET id = id + 9000",
    )

    assert memory_sum(claude_mem_copy) == before
