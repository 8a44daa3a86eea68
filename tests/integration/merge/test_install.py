"""A snapshot installed where there is no database."""

import os
import shutil
from pathlib import Path

import pytest

from membridge.claudemem.memory import memory_sum
from membridge.errors import ConflictError
from membridge.merge import collect, install
from membridge.merge.report import MergeReport
from tests.fixtures.databases import OLD, add_observation, connect, execute, rows_of
from tests.integration.merge.machines import Machine, soon
from tests.integration.merge.test_snapshot import UNSENT


def test_an_installed_snapshot_is_the_same_memory_and_all_of_it_is_foreign(tmp_path: Path) -> None:
    a = Machine.make("node-a", tmp_path, empty=False)
    execute(
        a.live, "UPDATE observations SET sync_rev = '4', relevance_count = 3; UPDATE sdk_sessions SET worker_port = 1"
    )
    execute(a.live, "INSERT INTO sync_state VALUES ('cursor', '9')")
    execute(a.live, "UPDATE observations SET origin_device_id = 'device-c', origin_local_id = '77' WHERE id = 5")
    mirror = a.push()
    live = tmp_path / "new home" / "claude-mem.db"

    install.install(mirror, live, source=a.source, deadline=soon())

    assert memory_sum(live) == memory_sum(a.live)
    assert rows_of(live, UNSENT) == [(0,)]
    assert rows_of(live, "SELECT count(*) FROM observations WHERE synced_at IS NULL OR sync_rev != '1'") == [(0,)]
    assert rows_of(live, "SELECT origin_device_id, origin_local_id FROM observations WHERE id IN (4, 5)") == [
        ("device-node-a", "4"),
        ("device-c", "77"),
    ]
    assert rows_of(live, "SELECT count(worker_port) FROM sdk_sessions") == [(0,)]
    assert rows_of(live, "SELECT count(*) FROM sync_state") == [(0,)]
    connection = connect(live)
    connection.execute("INSERT INTO observations_fts (observations_fts) VALUES ('integrity-check')")
    connection.close()
    assert [path.name for path in live.parent.iterdir() if path.name.startswith(".")] == []


def test_an_installed_database_takes_part_in_merges(tmp_path: Path) -> None:
    a = Machine.make("node-a", tmp_path, empty=False)
    b = Machine.make("node-b", tmp_path)
    b.live.unlink()
    mirror = a.push()
    install.install(mirror, b.live, source=a.source, deadline=soon())
    b.mirror = mirror
    add_observation(a.live, "news")

    assert b.unsynced() == 0
    assert b.pull(a.push(), a.source) == MergeReport(inserted=2)


def test_a_database_that_is_there_is_never_overwritten(tmp_path: Path) -> None:
    a, b = Machine.make("node-a", tmp_path, empty=False), Machine.make("node-b", tmp_path)
    before = memory_sum(b.live)

    with pytest.raises(ConflictError, match="appeared"):
        install.install(a.push(), b.live, source=a.source, deadline=soon())

    assert memory_sum(b.live) == before


def test_a_wal_of_a_lost_database_is_not_replayed_into_the_new_one(tmp_path: Path) -> None:
    a, b = Machine.make("node-a", tmp_path, empty=False), Machine.make("node-b", tmp_path)
    connection = connect(b.live)
    connection.execute("INSERT INTO sync_state VALUES ('stale', '1')")
    wal = Path(f"{b.live}-wal")
    stale = wal.read_bytes()
    connection.close()
    b.live.unlink()
    wal.write_bytes(stale)

    install.install(a.push(), b.live, source=a.source, deadline=soon())

    assert memory_sum(b.live) == memory_sum(a.live)
    assert Path(f"{wal}.orphan").read_bytes() == stale


def test_rowids_of_a_lost_database_are_not_used_again(tmp_path: Path) -> None:
    a = Machine.make("node-a", tmp_path, empty=False)
    execute(a.live, "UPDATE observations SET origin_device_id = 'mine', origin_local_id = '9000' WHERE id = 7")
    live = tmp_path / "home" / "claude-mem.db"
    live.parent.mkdir()
    (live.parent / "settings.json").write_text('{"CLAUDE_MEM_CLOUD_SYNC_DEVICE_ID": "mine"}', encoding="utf-8")

    install.install(a.push(), live, source=a.source, deadline=soon())
    add_observation(live, "new")

    assert rows_of(live, "SELECT id FROM observations WHERE title = 'new'") == [(9001,)]


def test_a_snapshot_of_an_old_version_installs(tmp_path: Path) -> None:
    old = Machine.make("old", tmp_path, version=OLD, empty=False)
    live = tmp_path / "home" / "claude-mem.db"
    mirror = old.push()

    install.install(mirror, live, source=old.source, deadline=soon())

    assert not collect.differs(live, mirror, deadline=soon())


def test_what_a_killed_install_left_is_not_replayed_into_the_next(tmp_path: Path) -> None:
    a = Machine.make("node-a", tmp_path, empty=False)
    live = tmp_path / "new home" / "claude-mem.db"
    staged = live.with_name(".claude-mem.db.membridge-install")
    live.parent.mkdir()
    shutil.copyfile(a.push(), staged)
    killed = connect(staged)
    killed.execute("PRAGMA journal_mode = DELETE; PRAGMA cache_size = 1; BEGIN").fetchall()
    killed.execute(
        "UPDATE observations SET narrative = 'half'; UPDATE user_prompts SET prompt_text = 'half'"
    ).fetchall()
    undo = Path(f"{staged}-journal").read_bytes()
    killed.close()
    Path(f"{staged}-journal").write_bytes(undo)
    execute(a.live, "UPDATE observations SET narrative = 'what came after'")

    install.install(a.push(), live, source=a.source, deadline=soon())

    assert memory_sum(live) == memory_sum(a.live)
    assert rows_of(live, "PRAGMA integrity_check") == [("ok",)]


def test_a_database_that_was_moved_away_after_a_killed_install_is_not_written_over(tmp_path: Path) -> None:
    a = Machine.make("node-a", tmp_path, empty=False)
    live, moved = tmp_path / "home" / "claude-mem.db", tmp_path / "home" / "kept.db"
    mirror = a.push()
    install.install(mirror, live, source=a.source, deadline=soon())
    # Killed between the database's name and the removal of the staged one: two names of one file.
    os.link(live, live.with_name(".claude-mem.db.membridge-install"))
    live.rename(moved)
    before = moved.read_bytes()

    install.install(mirror, live, source=a.source, deadline=soon())

    assert moved.read_bytes() == before
    assert moved.stat().st_nlink == live.stat().st_nlink == 1


def test_the_parts_of_a_killed_install_are_gone_after_the_next(tmp_path: Path) -> None:
    a = Machine.make("node-a", tmp_path, empty=False)
    live = tmp_path / "home" / "claude-mem.db"
    mirror = a.push()
    live.parent.mkdir()
    for suffix in ("", "-search", "-search2"):
        live.with_name(f".claude-mem.db.membridge-install{suffix}").write_bytes(b"half")

    install.install(mirror, live, source=a.source, deadline=soon())

    assert memory_sum(live) == memory_sum(a.live)
    assert [path.name for path in live.parent.iterdir() if path.name.startswith(".")] == []


def test_nothing_opens_the_file_once_it_is_the_live_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever closes it takes the locks from it that SQLite has in this process."""
    a, live = Machine.make("node-a", tmp_path, empty=False), tmp_path / "new home" / "claude-mem.db"
    opened: list[str] = []
    link, open_file = os.link, os.open

    def noted(path: str | Path, *arguments: int, **names: int) -> int:
        if Path(path).samefile(live):
            opened.append(str(path))
        return open_file(path, *arguments, **names)

    def linked(source: Path, target: Path) -> None:
        link(source, target)
        monkeypatch.setattr(os, "open", noted)

    monkeypatch.setattr(os, "link", linked)
    install.install(a.push(), live, source=a.source, deadline=soon())

    assert opened == []
    assert live.exists()
