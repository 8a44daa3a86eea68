"""The journal and the live database's write lock: the one is written while the other is free, and never too late."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import apsw
import pytest

from membridge.claudemem import database
from membridge.merge.conflicts import Journal, Lost
from tests.fixtures.databases import add_observation, execute, make_database, titles
from tests.integration.merge.machines import Machine, soon

ROOT = Path(__file__).parents[3]


class Watched(Journal):
    """A journal that says whether the live database could be written to while it was written itself."""

    def __init__(self, path: Path, live: Path) -> None:
        super().__init__(path)
        self._live = live
        self.writes: list[str] = []

    def _look(self, what: str) -> None:
        connection = apsw.Connection(str(self._live))
        try:
            # Fails at once when a transaction holds the lock, as claude-mem's worker would after its time-out.
            connection.execute("BEGIN IMMEDIATE").fetchall()
            connection.execute("ROLLBACK").fetchall()
        finally:
            connection.close()
        self.writes.append(what)

    def add_conflicts(self, losers: Iterable[Lost]) -> int:
        """Keep what lost, and look."""
        self._look("conflicts")
        return super().add_conflicts(losers)

    def quarantine_rows(self, rows: Iterable[tuple[str, str, bytes]]) -> None:
        """Set rows aside, and look."""
        self._look("quarantine")
        super().quarantine_rows(rows)

    def resolve(self, payloads: Iterable[bytes]) -> None:
        """Forget rows, and look."""
        self._look("resolve")
        super().resolve(payloads)


@pytest.fixture
def watched(machines: tuple[Machine, Machine]) -> Watched:
    """The second machine's journal, watched."""
    _, b = machines
    b.journal.close()
    b.journal = journal = Watched(b.folder / "journal.db", b.live)
    return journal


def test_journals_are_not_written_inside_the_live_databases_write_lock(
    machines: tuple[Machine, Machine], watched: Watched
) -> None:
    a, b = machines
    add_observation(a.live, "first")
    b.pull(a.push(), a.source)
    for machine, title in ((a, "theirs"), (b, "ours")):
        execute(machine.live, "UPDATE observations SET title = ? WHERE title = 'first'", (title,))
    execute(
        b.live,
        "CREATE TRIGGER picky BEFORE INSERT ON observations WHEN new.title = 'bad' "
        "BEGIN SELECT raise(ABORT, 'no'); END",
    )
    add_observation(a.live, "bad")

    report = b.pull(a.push(), a.source)
    execute(b.live, "DROP TRIGGER picky")
    b.pull(a.push(), a.source)

    assert (report.conflicts, report.quarantined) == (1, 1)
    assert watched.writes == ["conflicts", "quarantine", "resolve"]
    assert {"theirs", "bad"} <= titles(b.live)
    assert [conflict.lost.row["title"] for conflict in b.journal.conflicts()] == ["ours"]
    assert b.journal.quarantined() == []


def test_what_the_worker_writes_while_the_journal_is_written_is_the_loser(
    machines: tuple[Machine, Machine], watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = machines
    add_observation(a.live, "first")
    b.pull(a.push(), a.source)
    for machine, title in ((a, "theirs"), (b, "ours")):
        execute(machine.live, "UPDATE observations SET title = ? WHERE title = 'first'", (title,))
    look = watched._look

    def interfere(what: str) -> None:
        look(what)
        if watched.writes == ["conflicts"]:
            execute(b.live, "UPDATE observations SET title = 'ours again' WHERE title = 'ours'")

    monkeypatch.setattr(watched, "_look", interfere)
    b.pull(a.push(), a.source)

    assert watched.writes == ["conflicts", "conflicts"]
    assert "theirs" in titles(b.live)
    assert "ours again" in [conflict.lost.row["title"] for conflict in b.journal.conflicts()]


def test_the_loser_of_a_conflict_is_never_lost_wherever_the_merge_is_killed(tmp_path: Path) -> None:
    live = make_database(tmp_path / "live.db", empty=True)
    add_observation(live, "first")
    database.backup(live, tmp_path / "base.db", deadline=soon())
    theirs = tmp_path / "theirs-live.db"
    shutil.copyfile(tmp_path / "base.db", theirs)
    execute(theirs, "UPDATE observations SET title = 'theirs'")
    add_observation(theirs, "new")
    database.backup(theirs, tmp_path / "theirs.db", deadline=soon())
    execute(live, "UPDATE observations SET title = 'ours'")

    done = subprocess.run(
        [sys.executable, "-m", "tests.integration.merge.kill_points", str(tmp_path)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )

    states = [json.loads(line) for line in done.stdout.splitlines()]
    left, finished = states[::2], states[1::2]
    assert len(left) > 10
    assert all("ours" in held or lost == ["ours"] for _, held, lost in left), "gone from both"
    assert {tuple(held) for _, held, _ in left} == {("ours",), ("new", "theirs")}, "killed on both sides of the commit"
    assert all((held, lost) == (["new", "theirs"], ["ours"]) for _, held, lost in finished)
