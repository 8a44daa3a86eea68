"""Merges between versions of claude-mem, of rows that do not fit, of interrupted work, and of very much at once."""

from collections.abc import Callable
from pathlib import Path

import pytest

from membridge.claudemem.memory import memory_rows, memory_sum
from membridge.errors import MembridgeError
from membridge.merge import apply, snapshot
from tests.fixtures.databases import OLD, Writer, add_observation, execute, grow, rows_of, titles
from tests.integration.merge.machines import Machine, fill, soon, sync

UNSENT = (
    "SELECT count(*) FROM (SELECT 1 FROM observations WHERE synced_at IS NULL AND origin_device_id IS NULL UNION ALL "
    "SELECT 1 FROM session_summaries WHERE synced_at IS NULL AND origin_device_id IS NULL UNION ALL "
    "SELECT 1 FROM user_prompts WHERE synced_at IS NULL AND origin_device_id IS NULL)"
)


@pytest.mark.parametrize("old_is_primary", [True, False])
def test_versions_of_claude_mem_share_a_memory(tmp_path: Path, old_is_primary: bool) -> None:
    new, old = Machine.make("new", tmp_path, empty=False), Machine.make("old", tmp_path, version=OLD, empty=False)
    fill(new)
    fill(old)
    execute(new.live, "UPDATE observations SET metadata = '{}' WHERE id = 1")
    first, second = (old, new) if old_is_primary else (new, old)

    sync(first, second)

    for name in ("sdk_sessions", "observations", "session_summaries", "user_prompts"):
        assert rows_of(new.live, f"SELECT count(*) FROM {name}") == rows_of(old.live, f"SELECT count(*) FROM {name}")
    assert titles(new.live) == titles(old.live)
    assert rows_of(new.live, "SELECT metadata FROM observations WHERE id = 1") == [("{}",)]
    assert new.unsynced() == old.unsynced() == 0
    orphans = rows_of(new.live, "SELECT count(*) FROM user_prompts WHERE session_db_id IS NULL")
    assert orphans == [(0,)]


def test_a_table_that_one_side_lacks_is_no_deletion(machines: tuple[Machine, Machine]) -> None:
    a, b = machines
    tool = (
        "INSERT INTO tool_uses (tool_use_id, content_session_id, project, tool_name, session_db_id, observation_id, "
        "created_at, created_at_epoch) VALUES ('t', 's', 'p', 'Bash', 1, 1, '', 1)"
    )
    execute(b.live, tool)
    execute(a.live, "DROP TABLE tool_uses")

    b.pull(a.push(), a.source)
    sync(a, b)

    assert rows_of(b.live, "SELECT tool_use_id FROM tool_uses") == [("t",)]


def test_a_later_table_with_a_natural_key_travels_and_its_references_are_remapped(
    machines: tuple[Machine, Machine],
) -> None:
    a, b = machines
    fill(b)
    schema = (
        "CREATE TABLE marks (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, "
        "session_db_id INTEGER, observation_id INTEGER)"
    )
    for machine in (a, b):
        execute(machine.live, schema)
    add_observation(a.live, "marked")
    execute(
        a.live,
        "INSERT INTO marks (name, session_db_id, observation_id) SELECT 'm', s.id, o.id FROM observations o "
        "JOIN sdk_sessions s USING (memory_session_id) WHERE title = 'marked'",
    )

    b.pull(a.push(), a.source)

    found = rows_of(
        b.live,
        "SELECT o.title, s.memory_session_id = o.memory_session_id FROM marks JOIN observations o "
        "ON o.id = observation_id JOIN sdk_sessions s ON s.id = session_db_id",
    )
    assert found == [("marked", 1)]


@pytest.mark.parametrize(
    ("poison", "bindings"),
    [
        ("UPDATE observations SET narrative = CAST(x'ff00fe' AS TEXT) WHERE title = 'bad'", ()),
        ("UPDATE observations SET narrative = x'00ff' WHERE title = 'bad'", ()),
        ("UPDATE observations SET prompt_number = 'many' WHERE title = 'bad'", ()),
        ("UPDATE observations SET narrative = ? WHERE title = 'bad'", ("x" * (9 << 20),)),
    ],
)
def test_a_row_that_does_not_fit_is_set_aside_and_the_rest_goes_on(
    machines: tuple[Machine, Machine], poison: str, bindings: tuple[str, ...]
) -> None:
    a, b = machines
    add_observation(a.live, "bad")
    execute(a.live, poison, bindings)
    add_observation(a.live, "good")

    report = b.pull(a.push(), a.source)

    (item,) = b.journal.quarantined()
    assert report.quarantined == 1
    assert item.kind == "row"
    assert "good" in titles(b.live)
    assert "bad" not in titles(b.live)
    assert b.collect() == [], "a row set aside is not proposed for deletion"
    b.journal.drop(item.id)
    assert b.collect() == []
    assert b.journal.quarantined() == []


def test_a_row_set_aside_comes_in_once_it_fits(machines: tuple[Machine, Machine]) -> None:
    a, b = machines
    execute(
        b.live,
        "CREATE TRIGGER picky BEFORE INSERT ON observations WHEN new.title = 'bad' "
        "BEGIN SELECT raise(ABORT, 'no'); END",
    )
    add_observation(a.live, "bad")
    b.pull(a.push(), a.source)
    held = b.journal.quarantined()
    execute(b.live, "DROP TRIGGER picky")

    report = b.pull(a.push(), a.source)

    assert len(held) == 1
    assert report.inserted == 1
    assert b.journal.quarantined() == []


def test_a_merge_that_was_cut_goes_on_where_it_was(
    machines: tuple[Machine, Machine], monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = machines
    monkeypatch.setattr(apply, "HOLD", 0.0)
    fill(a, batches=10)
    head = a.push()

    with pytest.raises(_CutError):
        snapshot.merge_snapshot(
            b.live,
            base=b.mirror,
            theirs=head,
            source=a.source,
            journal=b.journal,
            deadline=soon(),
            progress=_cut_at(15),
        )
    half = len(memory_rows(b.live)["observations"])
    b.pull(head, a.source)

    assert 320 < half < 350
    assert memory_sum(a.live) == memory_sum(b.live)


class _CutError(Exception):
    """The merge was cut."""


def _cut_at(limit: int) -> Callable[[int, int], None]:
    def progress(done: int, total: int) -> None:
        if done >= limit:
            raise _CutError

    return progress


def test_a_transaction_that_fails_changes_nothing(machines: tuple[Machine, Machine]) -> None:
    a, b = machines
    add_observation(a.live, "first")
    b.pull(a.push(), a.source)
    for machine, title in ((a, "theirs"), (b, "ours")):
        execute(machine.live, "UPDATE observations SET title = ? WHERE title = 'first'", (title,))
    head, before = a.push(), memory_sum(b.live)
    execute(b.folder / "journal.db", "DROP TABLE conflicts")

    with pytest.raises(MembridgeError):
        b.pull(head, a.source)

    assert memory_sum(b.live) == before


def test_replacing_makes_the_memory_theirs_and_keeps_what_is_local(machines: tuple[Machine, Machine]) -> None:
    a, b = machines
    fill(a)
    fill(b)
    execute(b.live, "INSERT INTO sync_state VALUES ('cursor', '9')")
    ((session,),) = rows_of(b.live, "SELECT max(id) FROM sdk_sessions")
    execute(
        b.live,
        "INSERT INTO pending_messages (session_db_id, content_session_id, message_type, created_at_epoch) "
        "VALUES (?, 'c', 'observation', 1)",
        (session,),
    )
    before = dict(rows_of(b.live, "SELECT name, seq FROM sqlite_sequence"))
    kept = rows_of(b.live, "SELECT id, synced_at, origin_local_id FROM observations WHERE id <= 320 ORDER BY id")
    mirror = a.push()

    report = snapshot.replace_snapshot(mirror, b.live, source=a.source, journal=b.journal, deadline=soon())

    ours, theirs = memory_rows(b.live), memory_rows(a.live)
    assert {name: ours[name] for name in ours if name != "sdk_sessions"} == {
        name: theirs[name] for name in theirs if name != "sdk_sessions"
    }
    assert len(ours["sdk_sessions"] - theirs["sdk_sessions"]) == 1, "the session that pending work refers to stays"
    assert (report.inserted, report.deleted) == (18, 17)
    assert rows_of(b.live, "SELECT v FROM sync_state") == [("9",)]
    assert rows_of(b.live, "SELECT count(*) FROM pending_messages") == [(1,)]
    assert (
        rows_of(b.live, "SELECT id, synced_at, origin_local_id FROM observations WHERE id <= 320 ORDER BY id") == kept
    )
    after = dict(rows_of(b.live, "SELECT name, seq FROM sqlite_sequence"))
    assert all(after[name] >= seq for name, seq in before.items())  # type: ignore[operator]  # sequences are numbers


def test_a_session_with_thousands_of_rows_of_one_moment_merges(machines: tuple[Machine, Machine]) -> None:
    a, b = machines

    def crowd(writer: Writer) -> None:
        memory = writer.session()
        for _ in range(3_000):
            writer.observation(memory, at=1_700_000_000_000)

    with Writer(a.live) as writer:
        writer.bulk(crowd)

    report = b.pull(a.push(), a.source)
    execute(a.live, "UPDATE observations SET merged_into_project = 'q' WHERE created_at_epoch = 1700000000000")
    edited = b.pull(a.push(), a.source)

    assert report.inserted == 3_001
    assert edited.updated == 3_000
    assert memory_sum(a.live) == memory_sum(b.live)


def test_a_large_merge_never_holds_the_lock_for_long(tmp_path: Path) -> None:
    a, b = Machine.make("node-a", tmp_path), Machine.make("node-b", tmp_path)
    grow(a.live, 12)
    holds: list[float] = []
    began = [0.0]
    run = apply.Connection.run

    def timed(self: apply.Connection, sql: str, bindings: tuple[()] = ()) -> None:
        import time  # noqa: PLC0415 - of this test alone

        if sql == "BEGIN IMMEDIATE":
            run(self, sql, bindings)
            began[0] = time.monotonic()
        else:
            run(self, sql, bindings)
            if sql == "COMMIT" and began[0]:
                holds.append(time.monotonic() - began[0])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(apply.Connection, "run", timed)
        report = b.pull(a.push(), a.source)

    assert report.inserted > 4_000
    assert len(holds) > 5
    # Nearly all of them: another test may have the core in the middle of one.
    assert sorted(holds)[len(holds) * 9 // 10] < 0.2
    assert max(holds) < 2.0
