"""A merge never fails whole on what a newer claude-mem demands of a row."""

from pathlib import Path

import pytest

from membridge.claudemem.memory import memory_sum
from membridge.merge import snapshot
from tests.fixtures.databases import OLD, add_observation, execute, rows_of, titles
from tests.integration.merge.machines import Machine, fill, soon, sync

#: Columns as a migration to a newer schema could declare them; a default lets them be added to rows that are there.
COLUMNS = (
    ("sdk_sessions", "mood", "TEXT NOT NULL"),
    ("sdk_sessions", "uuid", "TEXT NOT NULL"),
    ("sdk_sessions", "turns", "INTEGER NOT NULL"),
    ("sdk_sessions", "updated_at", "TEXT NOT NULL"),
    ("sdk_sessions", "updated_at_epoch", "INTEGER NOT NULL"),
    ("observations", "weight", "REAL NOT NULL"),
    ("session_summaries", "language", "VARCHAR(8) NOT NULL"),
    ("user_prompts", "tokens", "INTEGER NOT NULL"),
)


def upgrade(live: Path) -> None:
    """Give a database columns that must not be empty and have no default, and one with an index of one of a kind."""
    for table, name, kind in COLUMNS:
        value = "''" if "TEXT" in kind or "CHAR" in kind else "0"
        execute(live, f"ALTER TABLE {table} ADD COLUMN {name} {kind} DEFAULT (-1); UPDATE {table} SET {name} = {value}")
    execute(live, "UPDATE sdk_sessions SET uuid = 'old ' || id; CREATE UNIQUE INDEX by_uuid ON sdk_sessions (uuid)")
    execute(live, "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET sql = replace(sql, ' DEFAULT (-1)', '')")


@pytest.mark.parametrize(("version", "newer_is_primary"), [(OLD, True), (OLD, False), ("13.25.3", True)])
def test_a_merge_never_fails_whole_on_a_new_not_null_column(
    tmp_path: Path, version: str, newer_is_primary: bool
) -> None:
    newer = Machine.make("newer", tmp_path, empty=False)
    older = Machine.make("older", tmp_path, version=version)
    upgrade(newer.live)
    fill(older)
    add_observation(older.live, "of the older one")
    first, second = (newer, older) if newer_is_primary else (older, newer)

    sync(first, second)

    assert titles(older.live) == titles(newer.live)
    for table in ("sdk_sessions", "observations", "session_summaries", "user_prompts"):
        assert rows_of(newer.live, f"SELECT count(*) FROM {table}") == rows_of(
            older.live, f"SELECT count(*) FROM {table}"
        )
    assert newer.journal.quarantined() == []
    assert newer.unsynced() == older.unsynced() == 0
    ((mood, turns, same_at, same_epoch),) = rows_of(
        newer.live,
        "SELECT mood, turns, updated_at = started_at, updated_at_epoch = started_at_epoch "
        "FROM sdk_sessions JOIN observations USING (memory_session_id) WHERE title = 'of the older one'",
    )
    assert (mood, turns, same_at, same_epoch) == ("", 0, 1, 1)


def test_every_newer_node_gives_an_older_nodes_row_the_same_values(tmp_path: Path) -> None:
    old = Machine.make("old", tmp_path)
    first, second = (Machine.make(name, tmp_path) for name in ("first", "second"))
    for machine in (first, second):
        upgrade(machine.live)
        execute(machine.live, "ALTER TABLE observations ADD COLUMN vector BLOB NOT NULL DEFAULT (-1)")
        execute(
            machine.live,
            "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET sql = replace(sql, ' DEFAULT (-1)', '')",
        )
    fill(old)

    for machine in (first, second):
        machine.pull(old.push(), old.source)

    assert rows_of(first.live, "SELECT count(DISTINCT uuid) FROM sdk_sessions") == [(3,)]
    assert rows_of(first.live, "SELECT DISTINCT typeof(vector), length(vector) FROM observations") == [("blob", 0)]
    assert memory_sum(first.live) == memory_sum(second.live)


def test_a_session_that_only_its_rows_name_is_made_where_a_new_column_must_not_be_empty(tmp_path: Path) -> None:
    newer, older = Machine.make("newer", tmp_path), Machine.make("older", tmp_path)
    upgrade(newer.live)
    add_observation(older.live, "without its session")
    execute(older.live, "PRAGMA foreign_keys = OFF; DELETE FROM sdk_sessions")

    newer.pull(older.push(), older.source)

    found = rows_of(newer.live, "SELECT title FROM observations JOIN sdk_sessions USING (memory_session_id)")
    assert found == [("without its session",)]


def test_what_a_newer_table_refuses_all_the_same_is_set_aside_and_the_rest_goes_on(tmp_path: Path) -> None:
    newer, older = Machine.make("newer", tmp_path), Machine.make("older", tmp_path)
    execute(newer.live, "ALTER TABLE sdk_sessions ADD COLUMN tier TEXT NOT NULL DEFAULT 'a' CHECK (tier IN ('a', 'b'))")
    execute(
        newer.live, "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET sql = replace(sql, ' DEFAULT ''a''', '')"
    )
    fill(older)
    execute(
        older.live,
        "INSERT INTO user_prompts (content_session_id, prompt_number, prompt_text, created_at, created_at_epoch) "
        "VALUES ('elsewhere', 1, 'fits', '', 1)",
    )

    report = newer.pull(older.push(), older.source)

    assert report.quarantined == len(newer.journal.quarantined()) > 0
    assert rows_of(newer.live, "SELECT prompt_text FROM user_prompts WHERE prompt_text = 'fits'") == [("fits",)]
    assert [row for row in newer.collect() if row.row is None] == [], "a row set aside is not proposed for deletion"


def test_a_replacement_takes_an_older_nodes_rows_into_a_newer_schema(tmp_path: Path) -> None:
    newer, older = Machine.make("newer", tmp_path, empty=False), Machine.make("older", tmp_path)
    upgrade(newer.live)
    add_observation(older.live, "alone")

    snapshot.replace_snapshot(older.push(), newer.live, source=older.source, journal=newer.journal, deadline=soon())

    assert titles(newer.live) == {"alone"}
