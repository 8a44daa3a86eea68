"""A search index that is joined of two parts is one that SQLite made in one piece."""

import random
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import apsw
import pytest

from membridge.claudemem.connection import open_to_build
from membridge.claudemem.sql import Connection
from membridge.merge import search_index
from membridge.merge.fill import fill
from membridge.merge.memory_file import MemoryFile
from membridge.merge.search_index import Parts, Rows, SearchIndex
from membridge.merge.search_parts import Joined
from tests.fixtures.databases import make_database, rows_of
from tests.integration.merge.machines import soon

WORDS = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda", "mu"]
SEARCHES = ("alpha", "beta AND gamma", '"delta alpha"', "epsi*", "title: zeta", "eta NOT theta", "NEAR(iota kappa, 3)")
INDEX = "observations_fts"
FIND = f"SELECT rowid, bm25({INDEX}) FROM {INDEX} WHERE {INDEX} MATCH ? ORDER BY rank, rowid"
NUMBERED = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 4000) "


class Bench:
    """A database of claude-mem with 4,000 observations whose search index is made of parts."""

    def __init__(self, folder: Path) -> None:
        self.path, self.state = make_database(folder / "claude-mem.db"), folder / "state.memory"
        worker = apsw.Connection(str(self.path))
        chance = random.Random(17)
        worker.create_scalar_function("words", lambda count: " ".join(chance.choices(WORDS, k=int(str(count)))))
        worker.execute(
            f"{NUMBERED} INSERT INTO observations (memory_session_id, project, type, title, narrative, facts, "
            "created_at, created_at_epoch) SELECT (SELECT memory_session_id FROM sdk_sessions WHERE memory_session_id "
            "IS NOT NULL LIMIT 1), 'p', 'discovery', words(3) || ' row' || i, words(40), words(9), '', i FROM n"
        )
        worker.close()
        with closing(MemoryFile(self.state, deadline=soon(), building=True)) as memory:
            fill(memory, self.path, is_live=True, deadline=soon())
        self.parts = (folder / "part-1", folder / "part-2")
        with closing(apsw.Connection(str(self.path))) as connection:
            sql = Connection(connection).texts("SELECT sql FROM sqlite_schema WHERE name = ?", (INDEX,))[0]
            index = search_index.search_index(Connection(connection), INDEX, sql)
        assert index is not None
        self.index: SearchIndex = index

    def make(self, condition: str = "1") -> None:
        """Make both parts."""
        Parts(self.parts, self.state, {self.index: Rows(condition, ())}).make(deadline=soon())

    def rows(self, condition: str = "1") -> int:
        """Return how many observations there are."""
        ((found,),) = rows_of(self.path, f"SELECT count(*) FROM observations t WHERE {condition}")
        return int(str(found))

    def join(self, rows: int) -> bool:
        """Join the parts in the database; return whether that is its index now."""
        with open_to_build(self.path, self.state, deadline=soon()) as connection:
            for number, part in enumerate(self.parts):
                connection.run(f"ATTACH ? AS part_{number}", (str(part),))
            connection.run("BEGIN")
            index = Joined(connection, self.index)
            index.take("part_0")
            index.take("part_1")
            joined = index.finish(rows=rows)
            connection.run("COMMIT")
        return joined

    def found(self) -> list[list[tuple[object, ...]]]:
        """Return what the searches find, in the order and with the rank of each."""
        return [list[tuple[object, ...]](rows_of(self.path, FIND, (words,))) for words in SEARCHES]

    def check(self) -> None:
        """Let SQLite compare the index with the rows."""
        self.tell("integrity-check", 1)

    def tell(self, command: str, number: int | None = None) -> None:
        """Give the index a command."""
        columns, marks = (INDEX, "?") if number is None else (f"{INDEX}, rank", "?, ?")
        rows_of(self.path, f"INSERT INTO {INDEX} ({columns}) VALUES ({marks})", tuple(filter(None, (command, number))))

    def segments(self) -> int:
        """Return how many segments have words."""
        ((found,),) = rows_of(self.path, f"SELECT count(DISTINCT segid) FROM {INDEX}_idx")
        return int(str(found))


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A database with an index in the making."""
    return Bench(tmp_path)


def test_it_finds_what_an_index_in_one_piece_finds_with_the_same_rank(bench: Bench) -> None:
    bench.tell("rebuild")
    whole = bench.found()
    assert all(whole)
    bench.make()

    assert bench.join(bench.rows())
    assert bench.segments() == 2
    assert bench.found() == whole
    bench.check()


def test_it_takes_in_what_is_written_later_and_is_merged_like_any_other(bench: Bench) -> None:
    bench.make()
    assert bench.join(bench.rows())

    for number in range(60):
        rows_of(bench.path, "UPDATE observations SET title = ? WHERE id = ?", (f"later{number}", number * 60 + 1))
        rows_of(bench.path, "DELETE FROM observations WHERE id = ?", (number * 60 + 2,))
    bench.check()
    joined = bench.found()
    assert [len(rows_of(bench.path, FIND, (f"later{number}",))) for number in range(60)] == [1] * 60
    bench.tell("merge", 500)
    bench.check()
    bench.tell("merge", -500)
    bench.check()
    assert bench.found() == joined
    bench.tell("optimize")
    bench.check()
    assert (bench.segments(), bench.found()) == (1, joined)
    bench.tell("rebuild")
    assert bench.found() == joined


@pytest.mark.parametrize("condition", ["t.rowid < 0", "t.rowid < 9", "t.rowid > 4300"])
def test_parts_without_a_row_are_nothing(bench: Bench, condition: str) -> None:
    rows = bench.rows(condition)
    bench.make(condition)

    assert bench.join(rows)
    assert bench.segments() == bool(rows)
    ((found,),) = rows_of(bench.path, f"SELECT count(*) FROM {INDEX}_docsize")
    assert found == rows


def test_rows_without_a_word_count_as_rows(bench: Bench) -> None:
    with closing(MemoryFile(bench.state, deadline=soon(), building=True)) as memory:
        memory.connection.run("UPDATE observations SET title = NULL, subtitle = NULL, narrative = NULL, text = NULL")
        memory.connection.run("UPDATE observations SET facts = NULL, concepts = NULL")
    bench.make()

    assert bench.join(bench.rows())
    assert bench.segments() == 0
    assert bench.found() == [[] for _ in SEARCHES]


def test_another_number_of_rows_is_not_taken_for_the_index(bench: Bench) -> None:
    bench.make()

    assert not bench.join(bench.rows() - 1)


def unmerged(part: apsw.Connection, index: str) -> None:
    """Leave a part as it is while it is gathered."""
    part.execute(f"INSERT INTO {index} ({index}, rank) VALUES ('automerge', 0)")
    for number in range(1, 4):
        part.execute(f"INSERT INTO {index} (rowid, title) VALUES (?, 'more')", (100_000 + number,))


def structure(change: Callable[[bytes], bytes]) -> Callable[[apsw.Connection, str], None]:
    """Return what changes the list of the segments."""

    def changed(part: apsw.Connection, index: str) -> None:
        ((record,),) = part.execute(f"SELECT block FROM {index}_data WHERE id = 10").fetchall()
        assert isinstance(record, bytes)
        part.execute(f"UPDATE {index}_data SET block = ? WHERE id = 10", (change(record),))

    return changed


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(unmerged, id="several segments"),
        pytest.param(structure(lambda record: record[:4] + b"\xff\x00\x00\x01" + record[4:]), id="a newer form"),
        pytest.param(structure(lambda record: record[:-1]), id="cut off"),
        pytest.param(structure(lambda record: record + b"\x01"), id="longer"),
        pytest.param(structure(lambda record: record[:4]), id="empty"),
        pytest.param(structure(lambda record: record + b"\xff" * 12), id="a number too large"),
        pytest.param(lambda part, index: part.execute(f"DELETE FROM {index}_data WHERE id = 1"), id="no averages"),
        pytest.param(
            lambda part, index: part.execute(f"UPDATE {index}_data SET block = x'0102' WHERE id = 1"), id="few averages"
        ),
        pytest.param(lambda part, index: part.execute(f"DELETE FROM {index}_data WHERE id > 10"), id="no pages"),
    ],
)
def test_a_part_of_another_form_is_not_taken_and_the_index_can_be_made_anew(
    bench: Bench, change: Callable[[apsw.Connection, str], object]
) -> None:
    bench.tell("rebuild")
    whole = bench.found()
    bench.make()
    with closing(apsw.Connection(str(bench.parts[1]))) as part:
        change(part, INDEX)

    assert not bench.join(bench.rows())
    with closing(apsw.Connection(str(bench.path))) as connection:
        search_index.rebuild(Connection(connection), INDEX)
    assert bench.found() == whole
    bench.check()
