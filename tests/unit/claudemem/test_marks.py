"""By what a database that went back in time is known, and what is no such thing."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import apsw
import pytest

from membridge.aio.deadline import Deadline
from membridge.claudemem import marks
from tests.fixtures.databases import Writer, connect, make_database, rows_of

NEWEST = "(SELECT max(id) FROM observations)"


def soon() -> Deadline:
    """Return a deadline that nothing here needs."""
    return Deadline.after(60)


class Live:
    """A live database with its worker, which keeps it open as claude-mem's does."""

    def __init__(self, folder: Path) -> None:
        self.path = make_database(folder / "claude-mem.db")
        self._older = folder / "older"
        self.worker = connect(self.path)
        self.write()

    def write(self, label: str = "") -> None:
        """Let the worker learn something."""
        with Writer(self.path, name=f"worker{label}") as writer:
            writer.batch()

    def run(self, sql: str) -> None:
        """Let the worker do something else."""
        self.worker.execute(sql).fetchall()

    def restart_wal(self) -> None:
        """Fold the WAL in and begin a new one."""
        self.run("PRAGMA wal_checkpoint(RESTART); UPDATE sdk_sessions SET status = 'failed' WHERE id = 2")

    def save(self) -> None:
        """Keep the files as they are."""
        shutil.rmtree(self._older, ignore_errors=True)
        self._older.mkdir()
        for file in self.path.parent.glob("claude-mem.db*"):
            if not file.name.endswith("-shm"):
                shutil.copyfile(file, self._older / file.name)

    def put_back(self) -> None:
        """Put the files in their place again."""
        self.worker.close()
        for file in self.path.parent.glob("claude-mem.db*"):
            file.unlink()
        for file in self._older.iterdir():
            shutil.copyfile(file, self.path.parent / file.name)
        self.worker = apsw.Connection(str(self.path))

    def note(self) -> marks.Marks:
        """Return the marks as they are."""
        return marks.read(self.path, deadline=soon())

    def sign(self, before: marks.Marks) -> str:
        """Return by what it is behind what was noted."""
        return marks.look(self.path, before, deadline=soon())[1]


@pytest.fixture
def live(tmp_path: Path) -> Live:
    """A database in use."""
    return Live(tmp_path)


@pytest.mark.parametrize(
    ("lost", "sign"),
    [
        (lambda live: live.write("lost"), "ids of observations, sdk_sessions, session_summaries, user_prompts"),
        (lambda live: live.run("INSERT INTO user_prompts SELECT 900, 1, 'c', 1, 'p', '', 1, 1, 'd', 'l', 1"), "ids"),
        (lambda live: live.run("UPDATE sdk_sessions SET custom_title = 'lost' WHERE id = 1"), "the WAL"),
        (lambda live: live.run(f"DELETE FROM observations WHERE id = {NEWEST}"), "the WAL"),
        (lambda live: (live.write("lost"), live.restart_wal()), ""),
        (lambda live: live.restart_wal(), "the"),
    ],
    ids=["rows", "rows of one table", "an update", "a deletion", "rows and the WAL's restart", "the WAL's restart"],
)
def test_older_files_in_their_place_are_known(live: Live, lost: Callable[[Live], None], sign: str) -> None:
    live.save()
    lost(live)
    noted = live.note()
    assert live.sign(noted) == ""

    live.put_back()

    found = live.sign(noted)
    assert found
    assert found.startswith(sign)


def test_an_older_file_is_known_when_the_worker_wrote_on_before_anybody_looked(live: Live) -> None:
    live.save()
    live.write("lost")
    noted = live.note()
    live.put_back()
    for number in range(3):
        live.write(f"instead {number}")
    live.run("PRAGMA wal_checkpoint(TRUNCATE)")

    assert live.note().sequences["observations"] > noted.sequences["observations"]
    assert live.sign(noted).startswith("row ")


def test_a_wal_that_lost_its_end_is_known_though_it_grew_again(live: Live) -> None:
    live.save()
    live.run("UPDATE sdk_sessions SET custom_title = 'lost' WHERE id = 1")
    noted = live.note()
    live.put_back()
    for number in range(5):
        live.run(f"UPDATE sdk_sessions SET custom_title = 'other {number}' WHERE id = 1")

    now = live.note()
    assert now.wal is not None
    assert noted.wal is not None
    assert (now.wal.salt, now.wal.frames > noted.wal.frames) == (noted.wal.salt, True)
    assert live.sign(noted) == "the WAL"


def test_an_older_file_without_a_wal_is_known_by_its_counter(live: Live) -> None:
    live.run("PRAGMA journal_mode = DELETE")
    live.save()
    live.run("UPDATE sdk_sessions SET custom_title = 'lost' WHERE id = 1")
    noted = live.note()
    live.put_back()

    assert noted.wal is None
    assert live.sign(noted) == "the file's change counter"


@pytest.mark.parametrize(
    "sql",
    [
        f"DELETE FROM observations WHERE id >= {NEWEST} - 3",
        "DELETE FROM observations; DELETE FROM session_summaries; DELETE FROM user_prompts; DELETE FROM sdk_sessions",
        "UPDATE observations SET title = 'edited'; UPDATE sdk_sessions SET memory_session_id = 'm' || id",
        "VACUUM",
        "PRAGMA wal_checkpoint(TRUNCATE)",
        "PRAGMA wal_checkpoint(RESTART)",
        "ALTER TABLE observations ADD COLUMN later TEXT; DROP TABLE tool_uses",
        "BEGIN; DELETE FROM observations; ROLLBACK",
        "PRAGMA journal_mode = DELETE",
        "CREATE TEMP TABLE o AS SELECT * FROM tool_uses; DELETE FROM tool_uses; INSERT INTO tool_uses SELECT * FROM o",
    ],
)
def test_what_a_user_or_the_worker_does_is_no_going_back(live: Live, sql: str) -> None:
    noted = live.note()
    live.run(sql)
    assert live.sign(noted) == ""
    live.write("after")
    live.restart_wal()
    live.write("and on")
    assert live.sign(noted) == ""
    live.worker.close()
    assert live.sign(noted) == "", "the last one to close it folds the WAL in and deletes it"


def test_the_end_of_the_wal_is_where_sqlite_sees_it(live: Live) -> None:
    before = live.note()
    live.run("UPDATE sdk_sessions SET custom_title = 'one page' WHERE id = 1")
    after = live.note()

    assert before.wal is not None
    assert after.wal is not None
    assert after.wal.salt == before.wal.salt
    assert after.wal.frames > before.wal.frames
    wal = Path(f"{live.path}-wal").read_bytes()
    last = 32 + (after.wal.frames - 1) * (24 + 4096)
    assert wal[last + 16 : last + 24].hex() == after.wal.total


def test_looking_takes_no_lock_away(live: Live) -> None:
    live.run("BEGIN IMMEDIATE")
    live.note()
    script = (
        "import apsw, sys\nconnection = apsw.Connection(sys.argv[1])\n"
        "try: connection.execute('BEGIN IMMEDIATE').fetchall()\nexcept apsw.BusyError: print('locked')"
    )
    seen = subprocess.run([sys.executable, "-c", script, live.path], capture_output=True, text=True, check=True)
    assert seen.stdout == "locked\n"
    assert rows_of(live.path, "PRAGMA integrity_check") == [("ok",)]
