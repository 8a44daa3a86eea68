"""Finding what differs between two databases, fast and never quadratic."""

import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from membridge.aio.deadline import Deadline
from membridge.claudemem import database
from membridge.claudemem.connection import open_to_compare
from membridge.merge import collect
from membridge.merge.difference import difference
from tests.fixtures.databases import Writer, add_observation, execute, grow, make_database, rows_of


def soon() -> Deadline:
    return Deadline.after(60)


def copy_of(path: Path, name: str = "theirs.db") -> Path:
    target = path.with_name(name)
    database.backup(path, target, deadline=soon())
    return target


def counts(ours: Path, theirs: Path) -> dict[str, tuple[int, int]]:
    with open_to_compare(ours, theirs, deadline=soon()) as connection:
        found = difference(connection)
    return {one.ours.name: (len(one.only_ours), len(one.only_theirs)) for one in found if not one.is_empty}


def test_what_is_local_is_no_difference(claude_mem_copy: Path) -> None:
    theirs = copy_of(claude_mem_copy)
    execute(claude_mem_copy, "UPDATE observations SET synced_at = 1, content_hash = hex(randomblob(9)), sync_rev = '8'")
    execute(claude_mem_copy, "INSERT INTO sync_state VALUES ('a', 'b')")
    execute(claude_mem_copy, "UPDATE observations SET id = id + 1000")

    assert counts(claude_mem_copy, theirs) == {}
    assert not collect.differs(claude_mem_copy, theirs, deadline=soon())


def test_rows_of_both_sides_are_found(claude_mem_copy: Path) -> None:
    theirs = copy_of(claude_mem_copy)
    add_observation(claude_mem_copy, "ours")
    execute(claude_mem_copy, "UPDATE observations SET title = 'x' WHERE id = 3")
    execute(claude_mem_copy, "DELETE FROM observations WHERE id IN (5, 6)")

    assert counts(claude_mem_copy, theirs) == {"sdk_sessions": (1, 0), "observations": (2, 3)}
    assert collect.differs(claude_mem_copy, theirs, deadline=soon())


def test_a_second_copy_of_a_row_is_no_difference(claude_mem_copy: Path) -> None:
    names = "memory_session_id, project, type, title, narrative, created_at, created_at_epoch"
    twice = f"INSERT INTO observations ({names}) SELECT 'm', 'p', 'x', 't', 'n', 'c', 5 FROM observations LIMIT ?"
    execute(claude_mem_copy, twice.replace("'m'", "memory_session_id"), (1,))
    theirs = copy_of(claude_mem_copy)
    execute(claude_mem_copy, twice.replace("'m'", "memory_session_id"), (1,))

    assert counts(claude_mem_copy, theirs) == {}
    assert counts(theirs, copy_of(claude_mem_copy, "more.db")) == {}


@pytest.mark.parametrize("crowd", [10, 5_000])
def test_a_change_is_found_however_many_rows_share_a_moment(claude_mem_copy: Path, crowd: int) -> None:
    def many(writer: Writer) -> None:
        memory = writer.session()
        for _ in range(crowd):
            writer.observation(memory, at=5)

    with Writer(claude_mem_copy) as writer:
        writer.bulk(many)
    theirs = copy_of(claude_mem_copy)
    execute(claude_mem_copy, "UPDATE observations SET title = 'x' || char(0) || 'a' WHERE id = 325")
    execute(claude_mem_copy, "UPDATE observations SET id = -id")

    began = time.monotonic()
    assert counts(claude_mem_copy, theirs) == {"observations": (1, 1)}
    assert time.monotonic() - began < 1.0


def test_a_lone_table_makes_a_difference_only_with_rows(claude_mem_copy: Path) -> None:
    theirs = copy_of(claude_mem_copy)
    execute(claude_mem_copy, "CREATE TABLE later (name TEXT UNIQUE)")
    empty = collect.differs(claude_mem_copy, theirs, deadline=soon())
    execute(claude_mem_copy, "INSERT INTO later VALUES ('x')")

    assert not empty
    assert collect.differs(claude_mem_copy, theirs, deadline=soon())


def test_a_large_database_is_compared_in_less_time_than_it_is_read(tmp_path: Path) -> None:
    ours = grow(make_database(tmp_path / "claude-mem.db"), 53)

    def session(writer: Writer) -> None:
        memory = writer.session()
        for _ in range(3_000):
            writer.observation(memory)

    with Writer(ours, name="long session") as writer:
        writer.bulk(session)
    theirs = copy_of(ours)
    execute(ours, "UPDATE observations SET id = id + 1000000 WHERE id > 10000")
    add_observation(ours, "new")

    def compare() -> None:
        assert counts(ours, theirs)["observations"] == (1, 0)

    def read() -> None:
        for path in (ours, theirs):
            rows_of(path, "SELECT * FROM observations")

    # Half of it, as measured; both in turns, as other tests take more of the machine at one time than at another.
    comparing, reading = zip(*((_processor(compare), _processor(read)) for _ in range(9)), strict=True)
    assert min(comparing) < min(reading)


def _processor(work: Callable[[], None]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def test_rows_that_are_equal_are_not_held_in_memory(tmp_path: Path) -> None:
    ours = make_database(tmp_path / "claude-mem.db")
    grow(ours, 24)
    theirs = copy_of(ours)
    rows = len(rows_of(ours, "SELECT id FROM observations"))
    add_observation(ours, "new")

    with open_to_compare(ours, theirs, deadline=soon()) as connection:
        difference(connection)
        tracemalloc.start()
        try:
            found = {one.ours.name: one.only_ours for one in difference(connection)}
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()

    assert len(found["observations"]) == 1
    # A number takes 32 bytes, and its place in a list 8.
    assert peak < rows * 40
