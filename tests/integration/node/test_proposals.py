"""Proposals between daemons: a primary that is away, a damaged object, deletions, and the bound on losing rows."""

import hashlib
import sqlite3
from contextlib import closing
from pathlib import Path

from membridge.aio.deadline import Deadline
from membridge.bus.connection import Bus
from membridge.claudemem.memory import memory_rows
from membridge.objectstore.jetstream import open_jetstream
from membridge.testing.node_process import NodeProcess
from membridge.testing.writer import write
from schemas import subjects
from schemas.identity import NodeId, canonical_id
from schemas.proposal import ProposalAnnouncement
from schemas.wire import encode
from tests.fixtures.machines import PROJECT, MakeMachine, command, until

ID = canonical_id(PROJECT)
#: Observations in the sample database.
SAMPLE_ROWS = 320


async def test_what_a_secondary_learns_while_the_primary_is_away_is_taken_in_when_it_is_back(
    make_machine: MakeMachine, bus: Bus
) -> None:
    a, b = await pair(make_machine, bus)
    await a.kill()
    write(str(b.database), 4, "alone")
    proposed = await command(b, "push")
    assert proposed["outcome"] in {"proposed", "unchanged"}
    assert observations(a.database) == SAMPLE_ROWS
    await a.start()
    await until(bus, a, lambda seen: seen.project.rows.get("observations") == SAMPLE_ROWS + 4)
    await until(bus, b, lambda seen: seen.project.unsynced == 0 and seen.project.lag == 0)
    assert memory_rows(a.database) == memory_rows(b.database)


async def test_a_deletion_on_the_secondary_reaches_the_primary(make_machine: MakeMachine, bus: Bus) -> None:
    a, b = await pair(make_machine, bus)
    kept = titles(a.database)
    gone = delete(b.database, 3)
    await until(bus, a, lambda seen: seen.project.rows.get("observations") == SAMPLE_ROWS - 3)
    await until(bus, b, lambda seen: seen.project.unsynced == 0 and seen.project.lag == 0)
    assert titles(a.database) == kept - gone
    assert memory_rows(a.database) == memory_rows(b.database)


async def test_a_secondary_that_lost_most_of_its_memory_takes_nothing_from_the_others(
    make_machine: MakeMachine, bus: Bus
) -> None:
    a, b = await pair(make_machine, bus)
    before = memory_rows(a.database)
    delete(b.database, SAMPLE_ROWS)
    seen = await until(bus, b, lambda seen: seen.last_error is not None)
    assert "would be deleted" in str(seen.last_error)
    code, output = await b.command("push")
    assert code == 1
    assert "would be deleted" in output
    assert "--allow-shrink" in output
    assert "restore --seq" in output
    assert memory_rows(a.database) == before
    await command(b, "pull", "--replace")
    assert memory_rows(b.database) == before


async def test_a_proposal_whose_object_is_damaged_waits_for_a_decision_and_blocks_nothing(
    make_machine: MakeMachine, bus: Bus
) -> None:
    a, b = await pair(make_machine, bus)
    await a.kill()
    damaged = await damaged_proposal(bus, b)
    write(str(b.database), 2, "after")
    await a.start()
    await until(bus, a, lambda seen: seen.project.rows.get("observations") == SAMPLE_ROWS + 2)
    await until(bus, a, lambda seen: seen.project.quarantined == 1)
    (item,) = (await command(a, "quarantine"))["items"]
    assert damaged.id in item["subject"]
    assert "damaged" in item["reason"]
    code, output = await a.command("quarantine", "retry", item["id"])
    assert code == 1
    assert "damaged" in output
    assert len((await command(a, "quarantine"))["items"]) == 1
    code, output = await a.command("quarantine", "drop", "no-such-item")
    assert (code, "no-such-item" in output) == (1, True)
    await command(a, "quarantine", "drop", item["id"])
    assert (await command(a, "quarantine"))["items"] == []
    await until(bus, a, lambda seen: seen.project.quarantined == 0)


async def test_a_proposal_that_was_set_aside_for_its_deletions_is_taken_in_on_a_retry(
    make_machine: MakeMachine, bus: Bus
) -> None:
    a, b = await pair(make_machine, bus)
    await b.stop()
    delete(b.database, SAMPLE_ROWS // 2)
    assert (await command(b, "push", "--allow-shrink"))["outcome"] == "proposed"
    await until(bus, a, lambda seen: seen.project.quarantined == 1)
    assert observations(a.database) == SAMPLE_ROWS
    (item,) = (await command(a, "quarantine"))["items"]
    assert "would be deleted" in item["reason"]
    # What the primary itself has lost is no part of that decision.
    delete(a.database, SAMPLE_ROWS)
    code, output = await a.command("quarantine", "retry", item["id"])
    assert code == 1
    assert "would be lost" in output
    await command(b, "pull")
    assert observations(b.database) == SAMPLE_ROWS // 2
    assert len((await command(a, "quarantine"))["items"]) == 1
    await command(a, "restore", "--seq", "1", "--yes")
    assert observations(a.database) == SAMPLE_ROWS
    await command(a, "quarantine", "retry", item["id"])
    assert observations(a.database) == SAMPLE_ROWS // 2
    assert (await command(a, "quarantine"))["items"] == []
    await command(b, "pull")
    assert memory_rows(a.database) == memory_rows(b.database)


async def pair(make_machine: MakeMachine, bus: Bus) -> tuple[NodeProcess, NodeProcess]:
    """A primary with the sample database and a secondary that has it too, both running."""
    a, b = make_machine("a", memory=True), make_machine("b")
    await a.start()
    await until(bus, a, lambda seen: seen.project.mirror_seq >= 1)
    await b.start()
    await until(bus, b, lambda seen: seen.project.mirror_seq >= 1 and seen.project.lag == 0)
    return a, b


async def damaged_proposal(bus: Bus, machine: NodeProcess) -> ProposalAnnouncement:
    """Announce a proposal of the machine whose object lost its last byte on the way."""
    body = b"what was announced"
    sha256 = hashlib.sha256(body).hexdigest()
    announcement = ProposalAnnouncement(
        id=sha256[:32],
        project=ID,
        node=NodeId(machine.name),
        key=f"projects/{ID}/proposals/{machine.name}/{sha256[:32]}.zst",
        sha256=sha256,
        size_bytes=len(body),
        rows=1,
        submitted_at="2026-01-01T00:00:00+00:00",
    )
    async with open_jetstream(bus) as store:
        await store.put(announcement.key, body[:-1], deadline=Deadline.after(10.0))
    subject = subjects.fill(subjects.PROPOSAL, project=ID, node=machine.name)
    await bus.stream_publish(subject, encode(announcement), message_id="damaged", deadline=Deadline.after(10.0))
    return announcement


def delete(database: Path, count: int) -> set[str]:
    """Delete the first observations; return their titles."""
    with closing(sqlite3.connect(database, timeout=10)) as connection, connection:
        chosen = "SELECT id FROM observations ORDER BY id LIMIT ?"
        rows = connection.execute(f"SELECT title FROM observations WHERE id IN ({chosen})", (count,)).fetchall()
        connection.execute(f"DELETE FROM observations WHERE id IN ({chosen})", (count,))
    return {title for (title,) in rows}


def titles(database: Path) -> set[str]:
    with closing(sqlite3.connect(database, timeout=10)) as connection:
        return {title for (title,) in connection.execute("SELECT title FROM observations")}


def observations(database: Path) -> int:
    with closing(sqlite3.connect(database, timeout=10)) as connection:
        return int(connection.execute("SELECT count(*) FROM observations").fetchone()[0])
