"""Merging a snapshot into a live database: what travels, what stays, and what a merge never does."""

from membridge.claudemem.memory import memory_rows, memory_sum
from membridge.merge.report import MergeReport
from tests.fixtures.databases import Writer, add_observation, connect, execute, rows_of, titles
from tests.integration.merge.machines import Machine, fill, sync

UNSENT = (
    "SELECT count(*) FROM (SELECT 1 FROM observations WHERE synced_at IS NULL AND origin_device_id IS NULL UNION ALL "
    "SELECT 1 FROM session_summaries WHERE synced_at IS NULL AND origin_device_id IS NULL UNION ALL "
    "SELECT 1 FROM user_prompts WHERE synced_at IS NULL AND origin_device_id IS NULL)"
)


def test_both_write_and_both_know_everything(machines: tuple[Machine, Machine]) -> None:
    a, b = machines
    fill(a)
    fill(b)

    sync(a, b)

    assert memory_sum(a.live) == memory_sum(b.live)
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
    assert memory_sum(a.live) == memory_sum(b.live)


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
    assert memory_sum(a.live) == memory_sum(b.live)


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

    assert memory_sum(a.live) == memory_sum(b.live)
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

    assert memory_sum(a.live) == memory_sum(b.live)
    assert {"on node-a", "on node-b"} <= titles(a.live)
