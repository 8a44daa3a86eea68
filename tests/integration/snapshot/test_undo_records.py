"""Undo records: durable before what they undo, exact, beside a worker that writes, and never taken for another's."""

import random
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from membridge.aio.deadline import Deadline
from membridge.errors import DatabaseCorruptError, DiskFullError, NotFoundError
from membridge.merge import install
from membridge.merge.former import Former
from membridge.merge.report import Source
from membridge.snapshot import backups
from membridge.snapshot.backups import BeforeWrite
from schemas.identity import NodeId
from tests.fixtures.backed_up import Machine, content_of, machine
from tests.fixtures.databases import NEW, OLD, Writer, add_observation, connect, execute, rows_of, titles
from tests.fixtures.lanes import soon


@pytest.fixture
def one(tmp_path: Path) -> Iterator[Machine]:
    """A machine whose database has one backup already, a full copy."""
    with machine(tmp_path / "machine") as made:
        made.learn(made.other, random.Random(1))
        made.merge()
        yield made


def newest(one: Machine) -> str:
    """Return the id of the newest backup."""
    return backups.listed(one.lane)[0].id


@pytest.mark.parametrize("version", [NEW, OLD])
async def test_a_merge_is_taken_back_exactly_local_columns_rowids_and_search_too(tmp_path: Path, version: str) -> None:
    with machine(tmp_path / "machine", version=version) as one:
        one.learn(one.other, random.Random(1))
        one.merge()
        execute(one.database, "UPDATE observations SET discovery_tokens = discovery_tokens + id")
        if version == NEW:
            execute(one.database, "UPDATE observations SET relevance_count = id, synced_at = NULL, sync_rev = '7'")
        # Text that is not UTF-8, a blob where text belongs, and a number that is not whole come back as they were.
        execute(one.database, "UPDATE observations SET subtitle = CAST(x'41ff42' AS TEXT), text = x'00ff' WHERE id = 2")
        execute(one.database, "UPDATE observations SET prompt_number = 1.5 WHERE id = 3")
        execute(one.database, "DELETE FROM observations WHERE id = 9")
        execute(one.other, "UPDATE observations SET title = title || '!', subtitle = 'other' WHERE id IN (2, 3, 4)")
        execute(one.other, "DELETE FROM observations WHERE id = 5")
        before = raw_content(one.database)
        add_observation(one.other, "news")
        one.merge()
        assert raw_content(one.database) != before
        taken = backups.listed(one.lane)[0]
        assert not taken.full_copy
        assert taken.size_bytes < 10_000
        done = await one.restore(taken.id)
        assert raw_content(one.database) == before
        assert done.writes == 1
        # And taking it back is taken back.
        assert done.saved is not None
        await one.restore(done.saved.stem)
        assert "news" in titles(one.database)


def raw_content(path: Path) -> list[tuple[object, ...]]:
    """Return all rows of the memory, text as bytes."""
    opened = connect(path)
    try:
        found: list[tuple[object, ...]] = []
        for table in ("sdk_sessions", "observations", "session_summaries", "user_prompts"):
            columns = [row[1] for row in opened.execute(f"PRAGMA table_info({table})")]
            each = ", ".join(f"typeof({name}), hex({name})" for name in columns)
            found += opened.execute(f"SELECT '{table}', rowid, {each} FROM {table} ORDER BY rowid").fetchall()
        for name in ("observations_fts", "user_prompts_fts"):
            opened.execute(f"INSERT INTO {name} ({name}) VALUES ('integrity-check')")
        return found
    finally:
        opened.close()


async def test_what_claude_mem_wrote_since_stays_and_what_was_merged_goes(one: Machine) -> None:
    choices = random.Random(3)
    one.learn(one.other, choices)
    theirs = add_observation(one.other, "merged")
    before = titles(one.database)
    one.merge()
    taken = newest(one)
    # claude-mem goes on with a session that came with the merge, edits a row of it, and has one of its own.
    with Writer(one.database, name="worker") as writer:
        writer.observation(theirs, title="in a session that came")
    execute(one.database, "UPDATE observations SET subtitle = 'edited here' WHERE title = 'merged'")
    add_observation(one.database, "of this machine")
    done = await one.restore(taken)
    assert titles(one.database) >= before - {"merged"} | {"in a session that came", "of this machine"}
    assert "merged" not in titles(one.database)
    assert done.changes.counts["sdk_sessions"]
    content_of(one.database)
    # The session stays for the row that refers to it.
    sql = "SELECT count(*) FROM sdk_sessions WHERE memory_session_id = ?"
    assert rows_of(one.database, sql, (theirs,)) == [(1,)]


async def test_a_session_that_a_merge_invents_goes_with_it(one: Machine) -> None:
    memory = add_observation(one.other, "without its session")
    execute(one.other, "PRAGMA foreign_keys = OFF; DELETE FROM sdk_sessions WHERE memory_session_id = ?", (memory,))
    before = content_of(one.database)
    one.merge()
    sql = "SELECT count(*) FROM sdk_sessions WHERE memory_session_id = ?"
    assert rows_of(one.database, sql, (memory,)) == [(1,)]
    await one.restore(newest(one))
    assert content_of(one.database) == before


class Raced(BeforeWrite):
    """A backup during whose writing the worker writes too; it records without the lock, or the worker would wait."""

    tries = 0

    def record(self, formers: Sequence[Former]) -> None:
        """Record, and let the worker insert a row."""
        super().record(formers)
        self.tries += 1
        if self.tries < 4:
            connection = connect(self._lane.database)
            connection.set_busy_timeout(0)
            connection.execute("UPDATE observations SET relevance_count = relevance_count + 1 WHERE id = 4")
            connection.close()
            add_observation(self._lane.database, f"of the worker {self.tries}")


async def test_a_worker_that_writes_between_record_and_commit_loses_nothing(one: Machine) -> None:
    add_observation(one.other, "merged")
    execute(one.other, "UPDATE observations SET subtitle = 'other' WHERE id = 4")
    memory = rows_of(one.database, "SELECT * FROM observations WHERE id != 4")
    counted = rows_of(one.database, "SELECT relevance_count, subtitle FROM observations WHERE id = 4")[0]
    save = Raced(one.lane, "merge", *one.context())
    one.merge(save=save)
    assert save.tries >= 4
    assert "merged" in titles(one.database)
    await one.restore(newest(one))
    worker = {f"of the worker {number}" for number in range(1, 4)}
    assert titles(one.database) >= worker
    assert "merged" not in titles(one.database)
    found = rows_of(one.database, "SELECT relevance_count, subtitle FROM observations WHERE id = 4")
    assert found == [(counted[0] + 3, counted[1])]
    names = ", ".join(f"'{name}'" for name in worker)
    assert rows_of(one.database, f"SELECT * FROM observations WHERE id != 4 AND title NOT IN ({names})") == memory
    content_of(one.database)


class Killed(BeforeWrite):
    """A backup of an operation that is killed right after its first record."""

    def record(self, formers: Sequence[Former]) -> None:
        """Record, and be killed."""
        super().record(formers)
        raise KeyboardInterrupt


async def test_a_record_of_a_transaction_that_never_happened_is_harmless(one: Machine) -> None:
    oldest = newest(one)
    one.learn(one.other, random.Random(5))
    one.merge()
    known = newest(one)
    add_observation(one.other, "merged")
    state = content_of(one.database)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            one.merge(save=Killed(one.lane, "merge", *one.context()))
        assert content_of(one.database) == state
    listed = [backup.id for backup in backups.listed(one.lane)]
    assert listed[1:] == [known, oldest]
    # The rowids in the record are claude-mem's by now.
    mine = add_observation(one.database, "of this machine")
    await one.restore(known)
    assert "of this machine" in titles(one.database)
    assert rows_of(one.database, "SELECT count(*) FROM sdk_sessions WHERE memory_session_id = ?", (mine,)) == [(1,)]
    one.merge()
    assert "merged" in titles(one.database)
    await one.restore(newest(one))
    assert {"of this machine"} <= titles(one.database)
    content_of(one.database)


class Full(BeforeWrite):
    """A backup on a disk that is full from its first record on."""

    def record(self, formers: Sequence[Former]) -> None:
        """Find no room."""
        raise DiskFullError(f"no room for {len(formers)} rows")


async def test_without_room_for_its_record_nothing_is_written(one: Machine) -> None:
    add_observation(one.other, "merged")
    state, known = content_of(one.database), backups.listed(one.lane)
    for _ in range(3):
        with pytest.raises(DiskFullError):
            one.merge(save=Full(one.lane, "merge", *one.context()))
    assert content_of(one.database) == state
    assert backups.listed(one.lane) == known
    one.merge()
    assert len(backups.listed(one.lane)) == len(known) + 1


async def test_a_damaged_record_is_named_and_the_newest_that_can_be_restored_is_not_it(one: Machine) -> None:
    for number in range(2):
        one.learn(one.other, random.Random(number))
        one.merge()
    last, middle, first = backups.listed(one.lane)
    damage(Path(middle.path))
    with pytest.raises(DatabaseCorruptError, match="the undo record"):
        await one.restore(middle.id)
    assert (await one.restore("newest")).backup == last.id
    assert (await one.restore(first.id)).backup == first.id


def damage(path: Path) -> None:
    """Change a byte in the middle of a record."""
    content = path.read_bytes()
    path.write_bytes(content[:-20] + bytes([content[-20] ^ 0xFF]) + content[-19:] + content[-200:])


async def test_over_a_damaged_database_the_nearest_newer_copy_leads_back(one: Machine) -> None:
    one.learn(one.other, random.Random(2))
    before = content_of(one.database)
    one.merge()
    wanted = newest(one)
    one.learn(one.other, random.Random(3))
    one.merge()
    ruin(one.database)
    with pytest.raises(NotFoundError, match="no newer full copy"):
        await one.restore(wanted)
    restored = await one.restore("newest")
    assert restored.aside is not None
    one.merge()
    # Nothing leads to the records of the database that is gone: each backup that is listed can be restored.
    assert [backup.full_copy for backup in backups.listed(one.lane)] == [True, True]
    one.learn(one.other, random.Random(4))
    state = content_of(one.database)
    one.merge()
    second = newest(one)
    backups.take(one.lane, "move", deadline=soon())
    ruin(one.database)
    await one.restore(second)
    assert content_of(one.database) == state
    assert before != state


def ruin(path: Path) -> None:
    """Write over the beginning of a database, as a disk that fails does."""
    execute(path, "PRAGMA wal_checkpoint(TRUNCATE)")
    with path.open("rb+") as file:
        file.write(b"\xa5" * 8192)


#: Gives every row another rowid.
RENUMBERED = (
    "PRAGMA foreign_keys = OFF;"
    + "".join(
        f"UPDATE {table} SET {column} = -{column}; UPDATE {table} SET {column} = 1 - {column};"
        for table, column in (
            ("sdk_sessions", "id"),
            ("observations", "id"),
            ("session_summaries", "id"),
            ("user_prompts", "id"),
            ("user_prompts", "session_db_id"),
            ("pending_messages", "session_db_id"),
        )
    )
    + "PRAGMA wal_checkpoint(TRUNCATE)"
)


async def test_records_of_another_database_are_never_applied(one: Machine, tmp_path: Path) -> None:
    one.learn(one.other, random.Random(2))
    one.merge()
    old = newest(one)
    # The database moves to another disk: it is the same one.
    moved = tmp_path / "moved.db"
    execute(one.database, "PRAGMA wal_checkpoint(TRUNCATE)")
    shutil.copyfile(one.database, moved)
    for path in one.database.parent.iterdir():
        path.unlink()
    shutil.copyfile(moved, one.database)
    one.learn(one.database, random.Random(7))
    assert (await one.restore(old)).writes == 1
    # It is deleted, and installed anew: rowids mean other rows now.
    for path in one.database.parent.iterdir():
        path.unlink()
    fresh = Source(node=NodeId("other"), device_id="other")
    execute(one.other, RENUMBERED)
    install.install(one.other, one.database, source=fresh, deadline=Deadline.after(60))
    state = content_of(one.database)
    with pytest.raises(NotFoundError, match="another database"):
        await one.restore(old)
    assert content_of(one.database) == state
    add_observation(one.other, "more")
    one.merge()
    assert backups.listed(one.lane)[0].full_copy
