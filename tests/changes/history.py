"""One random history: a writer's deeds, a look after some of them, and each look held against an oracle."""

import random
import shutil
import sqlite3
import subprocess
import sys
from collections import Counter
from contextlib import closing
from pathlib import Path

from membridge.aio.deadline import Deadline
from membridge.claudemem.live_view import LiveView, Look, Position
from membridge.claudemem.sql import Value
from membridge.claudemem.tables import quoted

SAMPLE = Path(__file__).parents[1] / "data" / "claude-mem-13.25.3.db"
#: What a writer does, by how often.
DEEDS = (*["transaction"] * 14, *["checkpoint"] * 3, "rebuild", "reopen", "busy")

Model = dict[str, dict[int, tuple[Value, ...]]]


class MissedRowError(AssertionError):
    """A change that a look did not report."""


def prepare(path: Path, dice: random.Random) -> None:
    """Make a database of a random page size and way of vacuuming, with few rows or many."""
    shutil.copyfile(SAMPLE, path)
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode = DELETE").fetchall()
        database.execute(f"PRAGMA page_size = {dice.choice([512, 1_024, 4_096, 4_096])}")
        database.execute(f"PRAGMA auto_vacuum = {dice.choice([0, 1, 2])}")
        database.execute("VACUUM")
        if dice.random() < 0.3:
            for table in ("observations", "user_prompts", "session_summaries", "sdk_sessions"):
                database.execute(f"DELETE FROM {table}")


class History:
    """A writer process and its database; what is done after its deeds, a kind of history says in `check`."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.dice, self.seed, self.folder = random.Random(seed), seed, folder
        self.path = folder / "claude-mem.db"
        prepare(self.path, self.dice)
        self._writer: subprocess.Popen[str] | None = None
        self._starts = 0
        #: Whether the writer is in the middle of a deed.
        self.is_writing = False
        #: How many looks took the cheap way, and why the others did not.
        self.ways: Counter[str] = Counter()

    def close(self) -> None:
        """End the writer."""
        self._kill()

    def restart(self) -> None:
        """Imitate a node that was killed: its connections go, what it noted stays."""

    def check(self) -> None:
        """Look, and compare what is known then with everything. Raises MissedRowError."""

    def round(self) -> None:
        """Let the writer do something, then check; now and then one of the two dies in between."""
        if self.dice.random() < 0.04:
            self.restart()
        for _ in range(self.dice.choice([0, 1, 1, 1, 2, 3])):
            self._do(self.dice.choice(DEEDS))
        self.check()

    def _do(self, deed: str) -> None:
        writer = self._started()
        assert writer.stdin is not None
        assert writer.stdout is not None
        writer.stdin.write(f"{deed}\n")
        writer.stdin.flush()
        if self.dice.random() < 0.03:
            # In the middle of whatever it does.
            self._kill()
            return
        if self.dice.random() < 0.2:
            self.is_writing = True
            self.check()
            self.is_writing = False
        answer = writer.stdout.readline()
        assert answer == "done\n", f"the writer died of seed {self.seed}"

    def _started(self) -> subprocess.Popen[str]:
        if self._writer is None:
            self._starts += 1
            self._writer = subprocess.Popen(
                [sys.executable, "-m", "tests.changes.writer", str(self.path), f"{self.seed}.{self._starts}"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                cwd=Path(__file__).parents[2],
            )
            assert self._writer.stdout is not None
            assert self._writer.stdout.readline() == "ready\n"
        return self._writer

    def _kill(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            with writer:
                writer.kill()


class LookHistory(History):
    """Looks by a `LiveView`: a model that is changed where it says is what the database holds."""

    def __init__(self, folder: Path, seed: int) -> None:
        super().__init__(folder, seed)
        self._view = LiveView(self.path, stays_open=self.dice.random() < 0.8)
        self._position: Position | None = None
        self._model: Model = {}

    def close(self) -> None:
        """End the writer and close the view."""
        super().close()
        self._view.close()

    def restart(self) -> None:
        """Close the view."""
        self._view.close()

    def check(self) -> None:
        """Look, take in what the look says, and compare with everything."""
        with self._view.look(self._position, deadline=Deadline.after(60.0)) as look:
            self._take_in(look)
            everything = _read_all(look)
        if self._model != everything:
            raise MissedRowError(f"seed {self.seed}: {_difference(self._model, everything)} ({dict(self.ways)})")
        self._position = look.position

    def _take_in(self, look: Look) -> None:
        self.ways["cheap" if look.ranges is not None else look.why] += 1
        if look.ranges is None:
            self._model = _read_all(look)
            return
        for name, ranges in look.ranges.items():
            held = self._model[name]
            for first, last in ranges:
                for rowid in [rowid for rowid in held if first < rowid <= last]:
                    del held[rowid]
                held |= _read(look, name, first, last)


def _read_all(look: Look) -> Model:
    return {name: _read(look, name, None, None) for name in look.tables}


def _read(look: Look, name: str, first: int | None, last: int | None) -> dict[int, tuple[Value, ...]]:
    where = "" if first is None or last is None else f"WHERE rowid > {max(first, -(1 << 63))} AND rowid <= {last}"
    rows = look.connection.rows(f"SELECT rowid, * FROM {quoted(name)} {where}")
    return {rowid: row for rowid, *row_ in rows if isinstance(rowid, int) for row in [tuple(row_)]}


def _difference(known: Model, true: Model) -> str:
    for name in {*known, *true}:
        ours, theirs = known.get(name, {}), true.get(name, {})
        wrong = [rowid for rowid in {*ours, *theirs} if ours.get(rowid) != theirs.get(rowid)]
        if wrong:
            return f"{len(wrong)} rows of {name}, {wrong[0]} among them"
    return "other tables"
