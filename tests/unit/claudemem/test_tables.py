"""Which tables and columns are memory."""

from pathlib import Path

import pytest

from membridge.aio.deadline import Deadline
from membridge.claudemem.connection import open_live
from membridge.claudemem.memory import memory_rows, memory_sum
from membridge.claudemem.tables import Table, expression, shared_columns, travelling_tables
from tests.fixtures.databases import NEW, OLD, connect, execute, make_database


def tables(path: Path) -> dict[str, Table]:
    with open_live(path, deadline=Deadline.after(10)) as connection:
        return travelling_tables(connection)


def test_memory_travels_and_what_is_local_does_not(claude_mem_copy: Path) -> None:
    found = tables(claude_mem_copy)

    assert list(found) == [
        "sdk_sessions", "observations", "session_summaries", "user_prompts", "telegram_wrapups", "tool_uses",
    ]  # fmt: skip
    assert not {"id", "synced_at", "origin_device_id", "sync_rev", "relevance_count", "content_hash"} & set(
        found["observations"].travelling
    )
    assert "worker_port" not in found["sdk_sessions"].travelling
    assert {column: to.table for column, to in found["tool_uses"].references.items()} == {
        "session_db_id": "sdk_sessions",
        "observation_id": "observations",
    }


@pytest.mark.parametrize(
    ("schema", "travels"),
    [
        ("CREATE TABLE later (id INTEGER PRIMARY KEY, name TEXT UNIQUE, note TEXT)", True),
        ("CREATE TABLE later (name TEXT PRIMARY KEY, note TEXT)", True),
        ("CREATE TABLE later (id INTEGER PRIMARY KEY, note TEXT)", False),
        ("CREATE TABLE later (id INTEGER PRIMARY KEY, session_db_id INTEGER UNIQUE)", False),
        ("CREATE TABLE later (id INTEGER PRIMARY KEY, name TEXT); CREATE UNIQUE INDEX u ON later (lower(name))", False),
        ("CREATE TABLE sync_later (name TEXT PRIMARY KEY)", False),
        ("CREATE TABLE api_keys (name TEXT PRIMARY KEY)", False),
    ],
)
def test_a_later_table_travels_when_its_rows_have_a_natural_key(
    claude_mem_copy: Path,
    schema: str,
    travels: bool,
) -> None:
    before = set(tables(claude_mem_copy))
    connection = connect(claude_mem_copy)
    for statement in schema.split("; "):
        connection.execute(statement)
    connection.close()

    assert bool(set(tables(claude_mem_copy)) - before) == travels


def test_a_reference_to_a_table_without_a_key_does_not_travel(claude_mem_copy: Path) -> None:
    execute(
        claude_mem_copy,
        "CREATE TABLE later (name TEXT UNIQUE, pending INTEGER REFERENCES pending_messages(id), "
        "prompt INTEGER REFERENCES user_prompts(id))",
    )

    found = tables(claude_mem_copy)["later"]

    assert found.travelling == ("name", "prompt")
    assert list(found.references) == ["prompt"]


def test_versions_share_their_common_columns(tmp_path: Path) -> None:
    new = tables(make_database(tmp_path / "new.db"))["sdk_sessions"]
    old = tables(make_database(tmp_path / "old.db", version=OLD))["sdk_sessions"]

    assert shared_columns(new, old)[:2] == ("platform_source", "content_session_id")
    assert "observed_model" not in shared_columns(new, old)
    assert expression(old, "platform_source", alias="t") == "'claude'"
    assert expression(old, "observed_model", alias="t") == "NULL"


def test_the_same_memory_has_one_digest_wherever_its_rows_lie(tmp_path: Path) -> None:
    new, old = make_database(tmp_path / "new.db", version=NEW), make_database(tmp_path / "again.db", version=NEW)
    execute(old, "PRAGMA foreign_keys = OFF")
    execute(old, "UPDATE observations SET id = id + 5000, synced_at = 9, content_hash = hex(randomblob(8))")

    assert memory_sum(new) == memory_sum(old)
    execute(old, "UPDATE observations SET title = 'x' WHERE id = 5001")
    assert memory_sum(new) != memory_sum(old)
    assert len(memory_rows(new)["observations"] - memory_rows(old)["observations"]) == 1
