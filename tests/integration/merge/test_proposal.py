"""What a secondary proposes, and what the primary makes of it."""

import json
from pathlib import Path

import msgspec

from membridge.claudemem import database
from membridge.claudemem.memory import memory_sum
from membridge.merge import collect
from membridge.merge.report import MergeReport
from schemas.proposal import ProposalBundle
from tests.fixtures.databases import Writer, add_observation, execute, rows_of, titles
from tests.integration.merge.machines import Machine, soon, sync


def test_a_machine_without_a_mirror_proposes_everything(tmp_path: Path) -> None:
    b = Machine.make("node-b", tmp_path, empty=False)

    rows = collect.collect(b.live, None, deadline=soon())

    assert len(rows) == sum(database.inspect(b.live, deadline=soon()).rows.values()) == 40 + 320 + 40 + 93
    assert [row.table for row in rows[:40]] == ["sdk_sessions"] * 40


def test_new_changed_and_deleted_rows_are_proposed(machines: tuple[Machine, Machine]) -> None:
    _, b = machines
    add_observation(b.live, "new")
    ((changed,), (deleted,)) = rows_of(b.live, "SELECT id FROM observations ORDER BY id LIMIT 2")
    execute(b.live, "UPDATE observations SET title = 'changed' WHERE id = ?", (changed,))
    execute(b.live, "DELETE FROM observations WHERE id = ?", (deleted,))

    found = {
        (row.table, row.base is not None, row.row["title"] if row.row and "title" in row.row else None)
        for row in b.collect()
    }

    assert found == {
        ("sdk_sessions", False, None),
        ("observations", False, "new"),
        ("observations", True, "changed"),
        ("observations", True, None),
    }


def test_the_primary_takes_a_proposal_in_once(machines: tuple[Machine, Machine]) -> None:
    a, b = machines
    with Writer(b.live) as writer:
        writer.batch()
    bundle = b.bundle()

    first, again = a.take_in(bundle), a.take_in(bundle)
    b.pull(a.push(), a.source)

    assert (first.inserted, first.quarantined) == (6, 0)
    assert again == MergeReport()
    assert memory_sum(a.live) == memory_sum(b.live)
    assert b.collect() == []


def test_rows_keep_the_origin_of_the_machine_that_wrote_them(tmp_path: Path) -> None:
    a, b, c = (Machine.make(name, tmp_path) for name in ("node-a", "node-b", "node-c"))
    add_observation(b.live, "of b")
    ((local,),) = rows_of(b.live, "SELECT id FROM observations WHERE title = 'of b'")

    sync(a, b, c)

    for machine in (a, c):
        origin = rows_of(
            machine.live, "SELECT origin_device_id, origin_local_id FROM observations WHERE title = 'of b'"
        )
        assert origin == [("device-node-b", str(local))]
    assert rows_of(b.live, "SELECT origin_device_id FROM observations WHERE title = 'of b'") == [(None,)]


def test_in_a_conflict_the_primarys_version_stays_and_the_other_is_journaled(machines: tuple[Machine, Machine]) -> None:
    a, b = machines
    add_observation(a.live, "first")
    b.pull(a.push(), a.source)
    for machine, title in ((a, "of a"), (b, "of b")):
        execute(machine.live, "UPDATE observations SET title = ? WHERE title = 'first'", (title,))

    report = a.take_in(b.bundle())

    (conflict,) = a.journal.conflicts()
    assert report.conflicts == 1
    assert "of a" in titles(a.live)
    assert conflict.lost.origin == "node-b"
    assert conflict.lost.row is not None
    assert conflict.lost.row["title"] == "of b"


def test_a_row_edited_after_it_was_proposed_stays_one_memory(machines: tuple[Machine, Machine]) -> None:
    a, b = machines
    add_observation(b.live, "draft")
    a.take_in(b.bundle())
    execute(b.live, "UPDATE observations SET title = 'final' WHERE title = 'draft'")

    sync(a, b)

    assert memory_sum(a.live) == memory_sum(b.live)
    assert len(titles(a.live) & {"draft", "final"}) == 1
    kept = b.journal.conflicts()[0].lost.row
    assert kept is not None
    assert kept["title"] == "final", "the other version is in the journal"


def test_a_proposal_with_a_row_that_does_not_fit_is_taken_in_but_for_it(machines: tuple[Machine, Machine]) -> None:
    a, b = machines
    add_observation(b.live, "good")
    add_observation(b.live, "bad")
    bundle = msgspec.json.decode(b.bundle(), type=ProposalBundle)
    rows = [
        msgspec.structs.replace(row, row={**row.row, "type": None})
        if row.row and row.row.get("title") == "bad"
        else row
        for row in bundle.rows
    ]

    report = a.take_in(msgspec.json.encode(msgspec.structs.replace(bundle, rows=rows)))

    assert (report.inserted, report.quarantined) == (3, 1)
    assert "good" in titles(a.live)
    assert len(a.journal.quarantined()) == 1


def test_rows_that_no_machine_could_take_in_are_not_proposed(machines: tuple[Machine, Machine]) -> None:
    _, b = machines
    add_observation(b.live, "bytes")
    execute(b.live, "UPDATE observations SET narrative = x'ff' WHERE title = 'bytes'")

    assert [row.table for row in b.collect()] == ["sdk_sessions"]


def test_tables_and_columns_that_the_primary_lacks_are_left_out(machines: tuple[Machine, Machine]) -> None:
    a, b = machines
    add_observation(b.live, "new")
    bundle = json.loads(b.bundle())
    for row in bundle["rows"]:
        row["row"]["column_of_tomorrow"] = 1
    bundle["rows"].append({"table": "table_of_tomorrow", "row": {"x": 1}})

    report = a.take_in(json.dumps(bundle).encode())

    assert report.inserted == 2
    assert "new" in titles(a.live)
