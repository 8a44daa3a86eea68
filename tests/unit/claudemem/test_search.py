"""Memories are found in databases of each claude-mem version, with and without a full-text index."""

import shutil
import sqlite3
from pathlib import Path

import pytest

from membridge.aio.deadline import Deadline
from membridge.claudemem import search
from schemas.memories import MemoriesRequest, MemoryFilter, MemoryKind, MemoryOrder

DATA = Path(__file__).parents[2] / "data"


def soon() -> Deadline:
    return Deadline.after(20.0)


@pytest.fixture(params=["claude-mem-13.25.3.db", "claude-mem-10.6.3.db"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return Path(shutil.copy(DATA / request.param, tmp_path / "claude-mem.db"))


@pytest.mark.parametrize("index", [True, False])
def test_each_memory_is_found_by_its_own_words_with_and_without_an_index(database: Path, index: bool) -> None:
    if not index:
        with sqlite3.connect(database) as rows:
            for table in ("observations", "session_summaries", "user_prompts"):
                rows.execute(f"DROP TABLE IF EXISTS {table}_fts")
        rows.close()
    listed = search.search(database, MemoriesRequest(limit=200), deadline=soon())
    assert {one.kind for one in listed.memories} == set(MemoryKind)
    for kind in MemoryKind:
        one = next(memory for memory in listed.memories if memory.kind is kind)
        words = " ".join(word for word in one.title.split() if word.isalnum())[:60].rpartition(" ")[0]
        found = search.search(database, MemoriesRequest(q=words, kind=kind, limit=200), deadline=soon())
        assert one.ref in {memory.ref for memory in found.memories}, words
        assert bool(found.memories[0].marks) is index
        assert search.read(database, one.ref, deadline=soon()).memory.ref == one.ref


def test_a_name_stays_when_the_row_moves(database: Path) -> None:
    before = search.search(database, MemoriesRequest(kind=MemoryKind.OBSERVATION), deadline=soon()).memories[0]
    with sqlite3.connect(database) as rows:
        rows.execute("UPDATE observations SET id = id + 100000 WHERE title = ?", (before.title,))
    rows.close()
    [found] = search.named(database, [before.ref, before.ref, "prompt-1-x"], deadline=soon())
    assert (found.memory.title, found.rowid > 100_000) == (before.title, True)


def test_a_bound_keeps_the_newest(database: Path) -> None:
    everything = search.select(database, MemoryFilter(), limit=1_000, deadline=soon())
    assert search.select(database, MemoryFilter(), limit=3, deadline=soon()) == everything[:3]
    assert [one.epoch for one in everything] == sorted((one.epoch for one in everything), reverse=True)


def test_the_oldest_first_is_the_other_way_round_page_by_page(database: Path) -> None:
    newest, oldest = listed(database, MemoryOrder.NEWEST), listed(database, MemoryOrder.OLDEST)
    assert oldest == newest[::-1]
    assert len(set(oldest)) == len(search.select(database, MemoryFilter(), limit=1_000, deadline=soon())) > 14


def listed(database: Path, order: MemoryOrder) -> list[str]:
    """Return the names of all memories in an order, read in pages of seven."""
    names: list[str] = []
    after = None
    while True:
        page = search.search(database, MemoriesRequest(limit=7, order=order, after=after), deadline=soon())
        names += [one.ref for one in page.memories]
        if page.next is None:
            return names
        after = page.next
