"""A backup that takes the place of the live database, as files."""

import shutil
import subprocess
import sys
from pathlib import Path

import apsw
import pytest

from membridge.aio.deadline import Deadline
from membridge.claudemem import database, overwrite
from membridge.claudemem.holders import holders
from membridge.claudemem.memory import memory_rows
from membridge.claudemem.overwrite import Condition
from membridge.errors import DatabaseBusyError, DatabaseInvalidError, DeadlineExceededError
from membridge.merge import install
from tests.fixtures.databases import add_observation, connect, execute, make_database, rows_of


def soon() -> Deadline:
    return Deadline.after(30.0)


def condition(path: Path) -> Condition:
    return overwrite.condition(path, deadline=soon())


def test_each_condition_is_recognised_and_another_programs_database_is_left_alone(tmp_path: Path) -> None:
    live = make_database(tmp_path / "claude-mem.db")
    assert condition(live) is Condition.USABLE
    assert condition(tmp_path / "none.db") is Condition.MISSING
    for name, content in (("cut.db", b""), ("text.db", b"not a database " * 400), ("short.db", live.read_bytes()[:50])):
        (tmp_path / name).write_bytes(content)
        assert condition(tmp_path / name) is Condition.DAMAGED
    other = tmp_path / "other.db"
    connection = apsw.Connection(str(other))
    connection.execute("CREATE TABLE notes (id INTEGER PRIMARY KEY)")
    connection.close()
    with pytest.raises(DatabaseInvalidError, match="not a claude-mem database"):
        condition(other)


def test_a_backup_of_another_page_size_is_written_beside_an_open_connection(tmp_path: Path) -> None:
    live, backup, staged = make_database(tmp_path / "claude-mem.db"), tmp_path / "backup.db", tmp_path / "staged.db"
    database.backup(live, backup, deadline=soon())
    execute(backup, "PRAGMA journal_mode = DELETE")
    wanted = memory_rows(backup)
    add_observation(live, "later")
    execute(live, "DELETE FROM observations WHERE id < 100")
    odd = tmp_path / "odd.db"
    connection = apsw.Connection(str(backup))
    connection.execute(f"PRAGMA page_size = 16384; VACUUM INTO '{odd}'")
    connection.close()
    last = rows_of(live, "SELECT max(seq) FROM sqlite_sequence")
    reader = connect(live)
    reader.execute("SELECT count(*) FROM observations").fetchall()
    for source in (odd, backup):
        overwrite.make_ready(source, staged, live=live, deadline=soon())
        overwrite.overwrite(staged, live, deadline=soon())
        assert memory_rows(live) == wanted
        assert rows_of(live, "SELECT max(seq) FROM sqlite_sequence") == last
    assert reader.execute("SELECT count(*) FROM observations").fetchall() == [(len(wanted["observations"]),)]
    reader.close()
    database.quick_check(live, deadline=soon())


def test_an_overwrite_that_breaks_off_leaves_the_database_as_it_was(tmp_path: Path) -> None:
    live, backup = make_database(tmp_path / "claude-mem.db"), tmp_path / "backup.db"
    database.backup(live, backup, deadline=soon())
    execute(backup, "PRAGMA journal_mode = DELETE")
    add_observation(live, "later")
    before = memory_rows(live)
    with pytest.raises(DeadlineExceededError):
        overwrite.overwrite(backup, live, deadline=Deadline.after(0.0))
    assert memory_rows(live) == before


def test_a_damaged_file_is_moved_with_its_wal_and_never_away_from_a_program_that_has_it_open(tmp_path: Path) -> None:
    live = tmp_path / "claude-mem.db"
    for end in ("", "-wal", "-shm"):
        shutil.copyfile(__file__, f"{live}{end}")
    program = "import sys; file = open(sys.argv[1]); print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", program, f"{live}-wal"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert [holder.pid for holder in holders(live)] == [process.pid]
        with pytest.raises(DatabaseBusyError, match=f"pid {process.pid}") as refused:
            overwrite.set_aside(live)
        assert f"kill {process.pid}" in refused.value.remedy
        assert sorted(path.name for path in tmp_path.iterdir()) == [f"{live.name}{end}" for end in ("", "-shm", "-wal")]
        process.communicate(b"\n")
    aside = overwrite.set_aside(live)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{aside.name}{end}" for end in ("", "-shm", "-wal")]


def test_the_place_of_a_damaged_database_is_taken_behind_a_link_too(tmp_path: Path) -> None:
    disk, home = tmp_path / "disk", tmp_path / "home"
    home.mkdir()
    backup = make_database(tmp_path / "backup.db")
    wanted = memory_rows(backup)
    execute(backup, "PRAGMA journal_mode = DELETE")
    live, real = home / "claude-mem.db", make_database(disk / "claude-mem.db")
    live.symlink_to(real)
    aside = overwrite.set_aside(live)
    assert (aside.parent, condition(live)) == (disk, Condition.MISSING)
    install.put(backup, live, deadline=soon())
    assert live.is_symlink()
    assert memory_rows(real) == wanted
    assert not [path for path in (*home.iterdir(), *disk.iterdir()) if "install" in path.name]
