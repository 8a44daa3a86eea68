"""Noticing that the live database changed."""

from pathlib import Path

from membridge.claudemem.changes import ChangeWatcher
from tests.fixtures.databases import add_observation, connect, execute, make_database


def test_a_commit_of_another_connection_is_a_change_told_once(claude_mem_copy: Path) -> None:
    watcher = ChangeWatcher(claude_mem_copy)
    quiet = watcher.changed()
    add_observation(claude_mem_copy, "new")

    assert not quiet
    assert watcher.changed()
    assert not watcher.changed()
    watcher.close()


def test_a_database_in_rollback_mode_is_watched_too(claude_mem_copy: Path) -> None:
    connection = connect(claude_mem_copy)
    connection.execute("PRAGMA journal_mode = DELETE").fetchall()
    watcher = ChangeWatcher(claude_mem_copy)

    connection.execute("INSERT INTO sync_state VALUES ('a', 'b')")
    connection.close()

    assert watcher.changed()
    watcher.close()


def test_a_database_that_appears_or_goes_is_a_change(tmp_path: Path) -> None:
    path = tmp_path / "claude-mem.db"
    watcher = ChangeWatcher(path)
    absent = watcher.changed()
    make_database(path)
    appeared, settled = watcher.changed(), watcher.changed()
    path.unlink()

    assert (absent, appeared, settled) == (False, True, False)
    assert watcher.changed()
    assert not watcher.changed()
    watcher.close()


def test_a_replaced_file_is_a_change_and_watched_on(claude_mem_copy: Path, tmp_path: Path) -> None:
    watcher = ChangeWatcher(claude_mem_copy)
    other = make_database(tmp_path / "other" / "claude-mem.db")
    other.replace(claude_mem_copy)

    assert watcher.changed()
    execute(claude_mem_copy, "INSERT INTO sync_state VALUES ('a', 'b')")
    assert watcher.changed()
    watcher.close()


def test_a_file_that_is_no_database_is_told_once_and_not_for_ever(tmp_path: Path) -> None:
    path = tmp_path / "claude-mem.db"
    watcher = ChangeWatcher(path)
    path.write_bytes(b"nothing that SQLite knows" * 50)

    assert [watcher.changed() for _ in range(3)] == [True, False, False]
    watcher.close()


def test_a_locked_database_is_no_news(claude_mem_copy: Path) -> None:
    connection = connect(claude_mem_copy)
    connection.execute("PRAGMA journal_mode = DELETE").fetchall()
    watcher = ChangeWatcher(claude_mem_copy)
    connection.execute("BEGIN EXCLUSIVE; INSERT INTO sync_state VALUES ('a', 'b')")

    assert not watcher.changed()
    connection.execute("COMMIT")
    assert watcher.changed()
    connection.close()
    watcher.close()
