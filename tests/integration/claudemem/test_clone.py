"""A full copy that shares its pages with the database, where the file system can, beside a worker that writes."""

import random
from pathlib import Path

from membridge.claudemem import clone, database
from membridge.snapshot import backups
from tests.fixtures.backed_up import content_of, machine
from tests.fixtures.copy_on_write import CloningDisk
from tests.fixtures.databases import execute, grow, make_database, rows_of, stop_writing, titles, writing_process
from tests.fixtures.lanes import soon


def test_a_clone_is_the_database_and_takes_no_room(cloning_disk: CloningDisk) -> None:
    live, target = (
        grow(make_database(cloning_disk.folder / "live" / "claude-mem.db"), 24),
        cloning_disk.folder / "clone.db",
    )
    execute(live, "UPDATE observations SET relevance_count = 7 WHERE id = 1")
    before = cloning_disk.used()
    assert clone.clone(live, target, deadline=soon())
    assert cloning_disk.used() - before < 4 << 20
    assert [path.name for path in cloning_disk.folder.iterdir() if path.name.startswith("clone")] == ["clone.db"]
    assert rows_of(target, "PRAGMA journal_mode = DELETE") == [("delete",)]
    assert content_of(target) == content_of(live)


def test_a_clone_beside_a_writer_that_checkpoints_is_one_state(cloning_disk: CloningDisk) -> None:
    live = make_database(cloning_disk.folder / "live" / "claude-mem.db")
    with writing_process(live) as process:
        for number in range(12):
            known, target = titles(live), cloning_disk.folder / f"{number}.db"
            if number % 3 == 0:
                execute(live, "PRAGMA wal_checkpoint(TRUNCATE)")
            assert clone.clone(live, target, deadline=soon())
            database.quick_check(target, deadline=soon())
            assert titles(target) >= known
            # Every observation has its session: they were written one after the other.
            assert rows_of(target, "PRAGMA foreign_key_check") == []
        written = stop_writing(process)
    assert titles(live) >= written


def test_another_file_system_says_no_and_nothing_is_left(tmp_path: Path) -> None:
    live, target = make_database(tmp_path / "live" / "claude-mem.db"), tmp_path / "clone.db"
    made = clone.clone(live, target, deadline=soon())
    assert made == target.exists()
    assert list(tmp_path.glob("clone.db-*")) == []


async def test_a_backup_on_such_a_disk_is_restored_exactly(cloning_disk: CloningDisk) -> None:
    with machine(cloning_disk.folder / "machine") as one:
        grow(one.database, 16)
        one.learn(one.other, random.Random(1))
        state, before = content_of(one.database), cloning_disk.used()
        one.merge()
        assert cloning_disk.used() - before < 6 << 20
        (taken,) = backups.listed(one.lane)
        assert taken.full_copy
        await one.restore(taken.id)
        assert content_of(one.database) == state
