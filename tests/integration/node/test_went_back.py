"""A live database that lost its newest rows is no reason to delete them elsewhere."""

import shutil
from contextlib import closing
from pathlib import Path

import apsw
import pytest

from membridge.bus.connection import Bus
from membridge.claudemem.memory import memory_rows
from membridge.cli.demonstration.machine import Machine
from tests.fixtures.databases import execute, titles
from tests.fixtures.machines import MakeMachine, command, until


async def synced(make_machine: MakeMachine, bus: Bus) -> tuple[Machine, Machine]:
    """Return a primary and a secondary that hold the same, as they are after they wrote and stopped."""
    a = make_machine("a", memory=True, PRIMARY_NODE_ID="a")
    b = make_machine("b", PRIMARY_NODE_ID="a")
    await a.start()
    await until(bus, a, lambda seen: seen.project.mirror_seq >= 1)
    await b.start()
    await until(bus, b, lambda seen: seen.project.mirror_seq >= 1 and b.database.exists())
    for machine in (a, b):
        shutil.copyfile(machine.database, machine.home / "older.db")
        await machine.write(4, f"newest of {machine.name}")
    await until(bus, b, lambda seen: "newest of a learned fact 3" in titles(b.database) and not seen.project.unsynced)
    await until(bus, a, lambda seen: memory_rows(a.database) == memory_rows(b.database) and not seen.project.unsynced)
    return a, b


@pytest.mark.parametrize("who", ["a", "b"])
async def test_an_older_file_in_its_place_gets_back_what_it_lacks(
    make_machine: MakeMachine, bus: Bus, who: str
) -> None:
    a, b = await synced(make_machine, bus)
    before, victim = memory_rows(a.database), a if who == "a" else b
    await victim.kill()
    for path in victim.database.parent.glob("claude-mem.db-*"):
        path.unlink()
    shutil.copyfile(victim.home / "older.db", victim.database)
    await victim.start()
    await until(bus, victim, lambda seen: memory_rows(victim.database) == before and not seen.project.unsynced)
    await a.write(1, "after")
    await until(bus, b, lambda _: memory_rows(a.database) == memory_rows(b.database))
    assert set(before["observations"]) < set(memory_rows(b.database)["observations"])


async def test_a_wal_that_was_damaged_loses_no_row_on_any_node(make_machine: MakeMachine, bus: Bus) -> None:
    a, b = await synced(make_machine, bus)
    await a.kill()
    wal = a.database.with_name(a.database.name + "-wal")
    saved = a.home / "with-wal"
    saved.mkdir()
    # A worker that was cut off left these: the newest rows are in the WAL alone.
    with closing(apsw.Connection(str(a.database))) as connection:
        connection.pragma("journal_mode", "wal")
        await a.write(3, "in the WAL")
        for path in (a.database, wal):
            shutil.copyfile(path, saved / path.name)
    await command(a, "push", "--snapshot")
    before = memory_rows(a.database)
    damaged = bytearray((saved / wal.name).read_bytes())
    assert damaged
    damaged[len(damaged) // 2] ^= 0x10
    for path in a.database.parent.glob("claude-mem.db*"):
        path.unlink()
    shutil.copyfile(saved / a.database.name, a.database)
    wal.write_bytes(damaged)
    lost = set(before["observations"]) - set(memory_rows(a.database)["observations"])
    assert lost
    await command(a, "push", "--snapshot")
    assert memory_rows(a.database) == before
    await command(b, "pull")
    assert memory_rows(b.database) == before
    assert (await command(a, "verify"))["findings"] == []


async def test_a_deletion_stays_one(make_machine: MakeMachine, bus: Bus) -> None:
    a, b = await synced(make_machine, bus)
    execute(a.database, "DELETE FROM observations WHERE id = (SELECT max(id) FROM observations)")
    await command(a, "push", "--snapshot")
    await until(bus, b, lambda _: memory_rows(a.database) == memory_rows(b.database))


async def test_a_smaller_database_can_be_meant(make_machine: MakeMachine, bus: Bus, tmp_path: Path) -> None:
    a = make_machine("a", memory=True)
    shutil.copyfile(a.database, tmp_path / "older.db")
    await a.write(3, "not wanted any more")
    await command(a, "push")
    for path in a.database.parent.glob("claude-mem.db*"):
        path.unlink()
    shutil.copyfile(tmp_path / "older.db", a.database)
    await command(a, "push", "--allow-shrink")
    assert not [title for title in titles(a.database) if "not wanted" in title]
