"""A database as a file: looked at, copied, checked; and everything that can be wrong with it."""

import os
import shutil
from pathlib import Path

import pytest

from membridge.aio.deadline import Deadline
from membridge.claudemem import database
from membridge.claudemem.connection import open_live
from membridge.claudemem.memory import memory_sum
from membridge.claudemem.translate import translated
from membridge.errors import (
    DatabaseBusyError,
    DatabaseCorruptError,
    DatabaseInvalidError,
    DatabaseMissingError,
    DeadlineExceededError,
    DiskFullError,
)
from tests.fixtures.databases import DATA, NEW, OLD, add_observation, connect, execute, make_database, rows_of


def soon() -> Deadline:
    return Deadline.after(30)


@pytest.mark.parametrize(("version", "schema"), [(NEW, 52), (OLD, 23)])
def test_a_real_database_is_described_and_not_written_to(tmp_path: Path, version: str, schema: int) -> None:
    path = tmp_path / "claude-mem.db"
    shutil.copyfile(DATA / f"claude-mem-{version}.db", path)
    before = path.read_bytes()

    facts = database.inspect(path, deadline=soon())

    assert facts.schema_version == schema
    assert facts.page_size * facts.page_count == facts.size_bytes == len(before)
    assert facts.rows["observations"] == 320
    assert set(facts.rows) >= {"sdk_sessions", "observations", "session_summaries", "user_prompts"}
    assert not facts.rows.keys() & {"pending_messages", "schema_versions", "sync_state"}
    assert path.read_bytes() == before
    # In WAL mode SQLite makes these two; nothing of ours is in them.
    assert {left.name for left in tmp_path.iterdir()} <= {path.name, f"{path.name}-wal", f"{path.name}-shm"}
    assert not Path(f"{path}-wal").exists() or Path(f"{path}-wal").stat().st_size == 0


def test_a_missing_database_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatabaseMissingError, match=r"gone\.db"):
        database.inspect(tmp_path / "gone.db", deadline=soon())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"not a database at all" * 100])
def test_a_file_that_is_no_claude_mem_database_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.db"
    path.write_bytes(content)

    with pytest.raises(DatabaseInvalidError):
        database.inspect(path, deadline=soon())


def test_another_programs_database_is_refused(tmp_path: Path) -> None:
    execute(tmp_path / "x.db", "CREATE TABLE t (x)")

    with pytest.raises(DatabaseInvalidError, match="not a claude-mem database"):
        database.inspect(tmp_path / "x.db", deadline=soon())


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatabaseInvalidError, match="not a file"):
        database.inspect(tmp_path, deadline=soon())


def test_damage_is_found(claude_mem_copy: Path) -> None:
    damaged = claude_mem_copy.with_name("damaged.db")
    database.backup(claude_mem_copy, damaged, deadline=soon())
    database.quick_check(damaged, deadline=soon())
    with damaged.open("r+b") as file:
        file.seek(4096 * 20)
        file.write(os.urandom(4096 * 30))

    with pytest.raises(DatabaseCorruptError):
        database.quick_check(damaged, deadline=soon())


def test_a_database_locked_beyond_the_deadline_is_busy(claude_mem_copy: Path) -> None:
    execute(claude_mem_copy, "PRAGMA journal_mode = DELETE")
    holder = connect(claude_mem_copy)
    holder.execute("PRAGMA journal_mode = DELETE").fetchall()
    holder.execute("BEGIN EXCLUSIVE")
    try:
        with pytest.raises(DatabaseBusyError):
            database.inspect(claude_mem_copy, deadline=Deadline.after(0.1))
    finally:
        holder.close()


def test_work_beyond_the_deadline_is_interrupted(claude_mem_copy: Path) -> None:
    forever = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n"
    with pytest.raises(DeadlineExceededError), open_live(claude_mem_copy, deadline=Deadline.after(0.05)) as connection:
        connection.run(forever)


def test_a_full_disk_is_told_as_such(claude_mem_copy: Path) -> None:
    fill = "PRAGMA max_page_count = 1; CREATE TABLE more AS SELECT randomblob(100000) FROM observations"

    with pytest.raises(DiskFullError), open_live(claude_mem_copy, deadline=soon()) as connection:
        connection.run(fill)


def test_a_copy_is_refused_before_it_would_fill_the_disk(
    claude_mem_copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.statvfs(tmp_path)
    full = os.statvfs_result([*list(real)[:4], 10, *list(real)[5:]])
    monkeypatch.setattr(os, "statvfs", lambda _: full)

    with pytest.raises(DiskFullError, match="needed"):
        database.backup(claude_mem_copy, tmp_path / "copy.db", deadline=soon())
    assert not (tmp_path / "copy.db").exists()


def test_errors_of_the_file_system_are_told(tmp_path: Path) -> None:
    with pytest.raises(DiskFullError), translated(tmp_path):
        raise OSError(28, "No space left on device")
    with pytest.raises(DatabaseInvalidError, match="denied"), translated(tmp_path):
        raise OSError(13, "Permission denied")


def test_a_copy_holds_what_is_still_in_the_wal(claude_mem_copy: Path, tmp_path: Path) -> None:
    writer = connect(claude_mem_copy)
    add_observation(claude_mem_copy, "fresh")
    copy = tmp_path / "copy.db"

    database.backup(claude_mem_copy, copy, deadline=soon())
    writer.close()

    assert memory_sum(copy) == memory_sum(claude_mem_copy)


def test_a_backup_keeps_everything(claude_mem_copy: Path, tmp_path: Path) -> None:
    execute(claude_mem_copy, "INSERT INTO sync_state VALUES ('cursor', '9')")

    database.backup(claude_mem_copy, tmp_path / "backup.db", deadline=soon())

    assert rows_of(tmp_path / "backup.db", "SELECT v FROM sync_state") == [("9",)]


def test_a_copy_that_fails_leaves_nothing_behind(claude_mem_copy: Path, tmp_path: Path) -> None:
    with pytest.raises(DeadlineExceededError):
        database.backup(claude_mem_copy, tmp_path / "copy.db", deadline=Deadline.after(0.0))
    with pytest.raises(DatabaseMissingError):
        database.backup(claude_mem_copy, tmp_path / "no folder" / "copy.db", deadline=soon())

    assert not [path for path in tmp_path.iterdir() if path.name.startswith("copy.db")]


@pytest.mark.parametrize("name", ["with space.db", 'it\'s "quoted".db', "gedächtnis-記憶.db", "100%?#.db"])
def test_any_path_will_do(tmp_path: Path, name: str) -> None:
    path = make_database(tmp_path / "odd folder's" / name)
    copy = path.with_name(f"copy of {name}")

    database.backup(path, copy, deadline=soon())

    assert database.inspect(copy, deadline=soon()).rows == database.inspect(path, deadline=soon()).rows


def test_a_link_to_a_database_is_that_database(claude_mem_copy: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.db"
    link.symlink_to(claude_mem_copy)

    with open_live(link, deadline=soon()) as connection:
        connection.run("INSERT INTO sync_state VALUES ('through', 'the link')")

    assert rows_of(claude_mem_copy, "SELECT v FROM sync_state") == [("the link",)]
    assert not Path(f"{link}-wal").exists()


def test_closing_never_checkpoints_the_workers_wal(claude_mem_copy: Path) -> None:
    with open_live(claude_mem_copy, deadline=soon()) as connection:
        connection.run("INSERT INTO sync_state VALUES ('a', 'b')")

    assert Path(f"{claude_mem_copy}-wal").stat().st_size > 0


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ('{"CLAUDE_MEM_CLOUD_SYNC_DEVICE_ID": "flat"}', "flat"),
        ('{"env": {"CLAUDE_MEM_CLOUD_SYNC_DEVICE_ID": "nested"}}', "nested"),
        ('{"CLAUDE_MEM_CLOUD_SYNC_DEVICE_ID": ""}', None),
        ('{"CLAUDE_MEM_CLOUD_SYNC_DEVICE_ID": 5}', None),
        ("[]", None),
        ("{", None),
    ],
)
def test_the_device_id_comes_from_the_settings_beside_the_database(
    claude_mem_copy: Path, settings: str, expected: str | None
) -> None:
    (claude_mem_copy.parent / "settings.json").write_text(settings, encoding="utf-8")

    assert database.device_id(claude_mem_copy) == expected


def test_without_settings_there_is_no_device_id(tmp_path: Path) -> None:
    assert database.device_id(tmp_path / "claude-mem.db") is None


def test_a_disk_that_fills_up_in_a_transaction_is_said_to_be_full(claude_mem_copy: Path) -> None:
    def fill() -> None:
        with open_live(claude_mem_copy, deadline=soon()) as connection:
            connection.run(f"PRAGMA max_page_count = {connection.number('PRAGMA page_count')}")
            with connection.apsw:
                connection.run("CREATE TABLE filler (x)")
                for _ in range(100):
                    connection.run("INSERT INTO filler VALUES (randomblob(100000))")

    with pytest.raises(DiskFullError):
        fill()
