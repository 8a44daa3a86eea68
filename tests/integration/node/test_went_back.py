"""A live database that lost its newest rows is no reason to delete them elsewhere."""

import shutil
from contextlib import closing
from pathlib import Path

import apsw

from membridge.bus.connection import Bus
from membridge.claudemem.memory import memory_rows
from membridge.testing.node_process import NodeProcess
from tests.fixtures.databases import execute, rows_of, titles
from tests.fixtures.machines import MakeMachine, command, until


async def synced(make_machine: MakeMachine, bus: Bus) -> tuple[NodeProcess, NodeProcess]:
    """Return a primary and a secondary that hold the same, as they are after they wrote; `older` is from before."""
    a = make_machine("a", memory=True, PRIMARY_NODE_ID="a")
    b = make_machine("b", PRIMARY_NODE_ID="a")
    await a.start()
    await until(bus, a, lambda seen: seen.project.mirror_seq >= 1)
    await b.start()
    await until(bus, b, lambda seen: seen.project.mirror_seq >= 1 and b.database.exists())
    for machine in (a, b):
        (machine.home / "older").mkdir()
        for file in files_of(machine):
            shutil.copyfile(file, machine.home / "older" / file.name)
        await machine.write(4, f"newest of {machine.name}")
        execute(machine.database, f"UPDATE sdk_sessions SET custom_title = 'of {machine.name}' WHERE id = 1")
        title = titled(machine)
        await until(bus, b, lambda seen, title=title: titled(b) == title and not seen.project.unsynced)
    await until(bus, b, lambda seen: "newest of a learned fact 3" in titles(b.database) and not seen.project.unsynced)
    await until(bus, a, lambda seen: memory_rows(a.database) == memory_rows(b.database) and not seen.project.unsynced)
    return a, b


def titled(machine: NodeProcess) -> object:
    """Return the title of the first session."""
    return rows_of(machine.database, "SELECT custom_title FROM sdk_sessions ORDER BY started_at_epoch LIMIT 1")


def files_of(machine: NodeProcess) -> list[Path]:
    """Return the files of its database that outlive a power cut: not the WAL's index."""
    return [file for file in machine.database.parent.glob("claude-mem.db*") if not file.name.endswith("-shm")]


def put_back(machine: NodeProcess) -> None:
    """Put its older files in their place, as a restored folder or a disk that lied would have them."""
    for file in machine.database.parent.glob("claude-mem.db*"):
        file.unlink()
    # The WAL first: a daemon that looks now must not take the file for one that needs none.
    for file in sorted((machine.home / "older").iterdir(), reverse=True):
        shutil.copyfile(file, machine.database.with_name(f"new {file.name}"))
        machine.database.with_name(f"new {file.name}").rename(machine.database.with_name(file.name))


async def test_older_files_in_their_place_while_the_node_is_off_get_back_what_they_lack(
    make_machine: MakeMachine, bus: Bus
) -> None:
    a, b = await synced(make_machine, bus)
    before = memory_rows(a.database)
    for victim in (a, b):
        await victim.kill()
        put_back(victim)
        # claude-mem's worker begins before the node does, and its new rows have the ids of those that are missing.
        await victim.write(9, f"before {victim.name}")
        await victim.start()
        await until(bus, victim, lambda seen, victim=victim: has(victim, before) and not seen.project.unsynced)
        await until(bus, b, lambda _: memory_rows(a.database) == memory_rows(b.database))
    assert has(b, before)
    assert {"before a learned fact 8", "before b learned fact 8"} <= titles(b.database)


async def test_older_files_in_their_place_while_the_node_runs_get_back_what_they_lack(
    make_machine: MakeMachine, bus: Bus
) -> None:
    a, b = await synced(make_machine, bus)
    before = memory_rows(a.database)
    for victim in (a, b):
        put_back(victim)
        await until(bus, victim, lambda seen, victim=victim: has(victim, before) and not seen.project.unsynced)
        await victim.write(1, f"after {victim.name}")
        await until(bus, b, lambda _: memory_rows(a.database) == memory_rows(b.database))
    assert has(b, before)
    assert {"after a learned fact 0", "after b learned fact 0"} <= titles(b.database)


def has(machine: NodeProcess, before: dict[str, set[str]]) -> bool:
    """Whether a machine has every row that there was."""
    now = memory_rows(machine.database)
    return all(rows <= now[table] for table, rows in before.items())


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
