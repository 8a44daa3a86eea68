"""Merging a snapshot into a live database: what travels, what stays, and what a merge never does."""

from collections.abc import Callable
from pathlib import Path

import pytest

from membridge.claudemem.memory import memory_digest, memory_rows
from membridge.errors import MembridgeError
from membridge.merge import apply, install, snapshot
from membridge.merge.report import MergeReport
from tests.fixtures.databases import OLD, Writer, add_observation, connect, execute, grow, rows_of, titles
from tests.integration.merge.machines import Machine, soon, sync

UNSENT = (
    "SELECT count(*) FROM (SELECT 1 FROM observations WHERE synced_at IS NULL AND origin_device_id IS NULL UNION ALL "
    "SELECT 1 FROM session_summaries WHERE synced_at IS NULL AND origin_device_id IS NULL UNION ALL "
    "SELECT 1 FROM user_prompts WHERE synced_at IS NULL AND origin_device_id IS NULL)"
)


@pytest.fixture
def machines(tmp_path: Path) -> tuple[Machine, Machine]:
    """Two machines that know the same: one pulled the other's first snapshot."""
    a, b = Machine.make("node-a", tmp_path, empty=False), Machine.make("node-b", tmp_path)
    b.pull(a.push(), a.source)
    return a, b


def fill(machine: Machine, batches: int = 3) -> None:
    with Writer(machine.live, name=machine.name) as writer:
        for _ in range(batches):
            writer.batch()


def test_both_write_and_both_know_everything(machines: tuple[Machine, Machine]) -> None:
    a, b = machines
    fill(a)
    fill(b)

    sync(a, b)

    assert memory_digest(a.live) == memory_digest(b.live)
    assert len(memory_rows(a.live)["observations"]) == 320 + 2 * 9
    assert b.unsynced() == 0


def test_a_pull_counts_what_it_did(machines: tuple[Machine, Machine]) -> None:
    a, b = machines
    execute(a.live, "UPDATE observations SET title = 'changed' WHERE id = 1")
    execute(a.live, "DELETE FROM observations WHERE id = 2")
    add_observation(a.live, "new")
    add_observation(b.live, "ours")

    report = b.pull(a.push(), a.source)

    assert report == MergeReport(inserted=2, updated=1, deleted=1, unsynced=2)
    assert {"changed", "new", "ours"} <= titles(b.live)


def test_a_second_merge_of_the_same_changes_nothing(machines: tuple[Machine, Machine]) -> None:
    a, b = machines
    fill(a)
    base, head = b.mirror, a.push()
    first = b.pull(head, a.source)
    b.mirror = base

    again = b.pull(head, a.source)

    assert first.inserted > 0
    assert again == MergeReport()


def test_a_row_from_another_machine_never_looks_like_an_unsent_one(machines: tuple[Machine, Machine]) -> None:
    a, b = machines
    execute(b.live, "UPDATE observations SET synced_at = 1")
    fill(a)
    fill(b, batches=1)
    native = len(rows_of(b.live, "SELECT 1 FROM observations WHERE origin_device_id IS NULL"))

    b.pull(a.push(), a.source)

    assert rows_of(b.live, UNSENT) == [(5,)], "this machine's own three observations, prompt and summary"
    assert len(rows_of(b.live, "SELECT 1 FROM observations WHERE origin_device_id IS NULL")) == native
    origins = rows_of(
        b.live, "SELECT origin_device_id, origin_local_id FROM observations WHERE origin_device_id NOT NULL"
    )
    ids = {str(row[0]) for row in rows_of(a.live, "SELECT id FROM observations")}
    assert {row[0] for row in origins} == {"device-node-a"}
    assert {str(row[1]) for row in origins} <= ids


def test_an_update_leaves_the_local_columns_alone(machines: tuple[Machine, Machine]) -> None:
    a, b = machines
    local = "synced_at, origin_device_id, origin_local_id, sync_rev, relevance_count, id"
    execute(b.live, "UPDATE observations SET synced_at = 5, sync_rev = '7', relevance_count = 9")
    before = rows_of(b.live, f"SELECT {local} FROM observations ORDER BY id")
    execute(b.live, "UPDATE sdk_sessions SET worker_port = 12345")
    execute(a.live, "UPDATE observations SET title = title || '!', relevance_count = 77, sync_rev = '3'")
    execute(a.live, "UPDATE sdk_sessions SET custom_title = 'named', worker_port = 1")

    report = b.pull(a.push(), a.source)

    assert report.updated == 320 + 40
    assert rows_of(b.live, f"SELECT {local} FROM observations ORDER BY id") == before
    assert rows_of(b.live, "SELECT DISTINCT worker_port, custom_title FROM sdk_sessions") == [(12345, "named")]


def test_rowid_sequences_only_grow(machines: tuple[Machine, Machine]) -> None:
    a, b = machines
    execute(b.live, "UPDATE sqlite_sequence SET seq = 50000 WHERE name = 'observations'")
    execute(a.live, "DELETE FROM observations WHERE id > 10")
    add_observation(a.live, "new")

    b.pull(a.push(), a.source)

    assert rows_of(b.live, "SELECT seq FROM sqlite_sequence WHERE name = 'observations'") == [(50001,)]


def test_prompts_point_at_their_session_wherever_it_lies(machines: tuple[Machine, Machine]) -> None:
    a, b = machines
    fill(b)
    fill(a)

    sync(a, b)

    for machine in (a, b):
        wrong = rows_of(
            machine.live,
            "SELECT 1 FROM user_prompts p LEFT JOIN sdk_sessions s ON s.id = p.session_db_id "
            "WHERE s.content_session_id IS NOT p.content_session_id",
        )
        assert wrong == []


def test_full_text_search_finds_what_came_and_not_what_went(machines: tuple[Machine, Machine]) -> None:
    a, b = machines
    add_observation(a.live, "xylophone")
    execute(a.live, "UPDATE observations SET title = 'glockenspiel' WHERE id = 1")

    b.pull(a.push(), a.source)

    connection = connect(b.live)
    for table in ("observations", "session_summaries", "user_prompts"):
        connection.execute(f"INSERT INTO {table}_fts ({table}_fts) VALUES ('integrity-check')")
    found = connection.execute(
        "SELECT count(*) FROM observations_fts WHERE observations_fts MATCH 'xylophone OR glockenspiel'"
    )
    assert found.fetchall() == [(2,)]
    connection.close()


def test_a_session_that_theirs_deleted_stays_while_ours_has_rows_in_it(machines: tuple[Machine, Machine]) -> None:
    a, b = machines
    ((memory,),) = rows_of(
        b.live, "SELECT memory_session_id FROM sdk_sessions WHERE memory_session_id NOT NULL LIMIT 1"
    )
    assert isinstance(memory, str)
    with Writer(b.live) as writer:
        writer.observation(memory, title="only here")
    execute(a.live, "DELETE FROM sdk_sessions WHERE memory_session_id = ?", (memory,))

    b.pull(a.push(), a.source)
    sync(a, b)

    for machine in (a, b):
        assert "only here" in titles(machine.live)
        assert rows_of(machine.live, "SELECT 1 FROM sdk_sessions WHERE memory_session_id = ?", (memory,))
    assert memory_digest(a.live) == memory_digest(b.live)


def test_a_session_deleted_everywhere_is_gone_with_its_rows(machines: tuple[Machine, Machine]) -> None:
    a, b = machines
    ((memory,),) = rows_of(
        b.live, "SELECT memory_session_id FROM sdk_sessions WHERE memory_session_id NOT NULL LIMIT 1"
    )
    execute(b.live, "DELETE FROM sdk_sessions WHERE memory_session_id = ?", (memory,))

    sync(a, b)

    for machine in (a, b):
        assert not rows_of(machine.live, "SELECT 1 FROM sdk_sessions WHERE memory_session_id = ?", (memory,))
        assert not rows_of(machine.live, "SELECT 1 FROM observations WHERE memory_session_id = ?", (memory,))
    assert memory_digest(a.live) == memory_digest(b.live)


def test_new_rows_bring_a_session_back_that_ours_had_deleted(machines: tuple[Machine, Machine]) -> None:
    a, b = machines
    ((memory,),) = rows_of(
        b.live, "SELECT memory_session_id FROM sdk_sessions WHERE memory_session_id NOT NULL LIMIT 1"
    )
    assert isinstance(memory, str)
    execute(b.live, "DELETE FROM sdk_sessions WHERE memory_session_id = ?", (memory,))
    with Writer(a.live) as writer:
        writer.observation(memory, title="news")

    b.pull(a.push(), a.source)

    assert "news" in titles(b.live)
    assert rows_of(b.live, "PRAGMA foreign_key_check") == []


def test_a_memory_id_that_comes_later_reaches_the_other_machine(machines: tuple[Machine, Machine]) -> None:
    a, b = machines
    execute(
        a.live,
        "INSERT INTO sdk_sessions (content_session_id, project, started_at, started_at_epoch) "
        "VALUES ('late', 'p', '', 1)",
    )
    b.pull(a.push(), a.source)
    execute(a.live, "UPDATE sdk_sessions SET memory_session_id = 'mem-late' WHERE content_session_id = 'late'")

    b.pull(a.push(), a.source)

    assert rows_of(b.live, "SELECT memory_session_id FROM sdk_sessions WHERE content_session_id = 'late'") == [
        ("mem-late",)
    ]


def test_no_observation_loses_its_session_in_a_conflict_of_memory_ids(machines: tuple[Machine, Machine]) -> None:
    a, b = machines
    for machine in (a, b):
        execute(
            machine.live,
            "INSERT INTO sdk_sessions (content_session_id, memory_session_id, project, started_at, started_at_epoch) "
            "VALUES ('same', ?, 'p', '', 1)",
            (f"mem-{machine.name}",),
        )
        with Writer(machine.live, name=machine.name) as writer:
            writer.observation(f"mem-{machine.name}", title=machine.name)

    sync(a, b)

    assert memory_digest(a.live) == memory_digest(b.live)
    for machine in (a, b):
        assert {"node-a", "node-b"} <= titles(machine.live)
        assert rows_of(machine.live, "PRAGMA foreign_key_check") == []
    assert b.journal.counts().conflicts > 0


def test_a_conflict_keeps_the_loser_in_the_journal(machines: tuple[Machine, Machine]) -> None:
    a, b = machines
    add_observation(a.live, "first")
    b.pull(a.push(), a.source)
    for machine, title in ((a, "theirs"), (b, "ours")):
        execute(machine.live, "UPDATE observations SET title = ? WHERE title = 'first'", (title,))

    report = b.pull(a.push(), a.source)

    (conflict,) = b.journal.conflicts()
    assert report.conflicts == 1
    assert "theirs" in titles(b.live)
    assert conflict.lost.row is not None
    assert conflict.kept.row is not None
    assert (conflict.lost.row["title"], conflict.kept.row["title"]) == ("ours", "theirs")
    assert (conflict.lost.origin, conflict.kept.origin) == ("ours", "node-a")


def test_random_content_hashes_are_no_difference(machines: tuple[Machine, Machine]) -> None:
    a, b = machines
    execute(a.live, "UPDATE observations SET content_hash = hex(randomblob(8))")

    assert b.pull(a.push(), a.source) == MergeReport()
    assert a.unsynced() == b.unsynced() == 0


def test_two_memories_with_one_content_hash_are_both_kept(machines: tuple[Machine, Machine]) -> None:
    a, b = machines
    for number, machine in enumerate((a, b)):
        with Writer(machine.live, name="same") as writer:
            memory = writer.session(content_id="manual-p")
            writer.observation(memory, title=f"on {machine.name}", at=1_700_000_000_000 + number)
        execute(
            machine.live, "UPDATE observations SET content_hash = 'the same' WHERE memory_session_id = 'mem-manual-p'"
        )

    sync(a, b)

    assert memory_digest(a.live) == memory_digest(b.live)
    assert {"on node-a", "on node-b"} <= titles(a.live)


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
    assert memory_digest(a.live) == memory_digest(b.live)


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
    head, before = a.push(), memory_digest(b.live)
    execute(b.folder / "journal.db", "DROP TABLE conflicts")

    with pytest.raises(MembridgeError):
        b.pull(head, a.source)

    assert memory_digest(b.live) == before


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

    report = install.replace(mirror, b.live, source=a.source, journal=b.journal, deadline=soon())

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
    assert memory_digest(a.live) == memory_digest(b.live)


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
    assert max(holds) < 0.2
