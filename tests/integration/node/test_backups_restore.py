"""`backups restore`: this machine's database back, a damaged one too, and nothing is deleted anywhere by that."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from membridge.bus.connection import Bus
from membridge.claudemem.memory import memory_rows
from membridge.testing.node_process import NodeProcess
from tests.fixtures.databases import execute, rows_of, titles
from tests.fixtures.machines import MakeMachine, command, until
from tests.fixtures.way_back import delete, grown, killed_at, pair, remedy_of, typed

PENDING = """
INSERT INTO pending_messages (session_db_id, content_session_id, message_type, created_at_epoch)
SELECT id, content_session_id, 'observation', 1 FROM sdk_sessions LIMIT 1
"""


async def test_a_backup_brings_a_database_back_beside_its_daemon_and_the_others_fill_it_up(
    make_machine: MakeMachine, bus: Bus
) -> None:
    a, b = await pair(make_machine, bus)
    _, before = await grown(a, b, bus)
    execute(b.database, PENDING)
    (taken,) = (await command(b, "backups"))["backups"]
    highest = rows_of(b.database, "SELECT max(seq) FROM sqlite_sequence WHERE name = 'observations'")
    old = memory_rows(Path(taken["path"]))
    delete(b, "id > 30")
    code, shown = await b.command("backups", "restore", taken["id"])
    assert code == 1
    assert "observations" in shown
    assert "run it again with --yes" in shown
    done = await command(b, "backups", "restore", taken["id"], "--yes")
    back = {one["table"]: one["came"] for one in done["tables"]}
    assert back["observations"] == len(old["observations"]) - 30
    assert (done["damage"], done["set_aside"]) == ("", None)
    assert len(titles(Path(done["saved"]))) == 30
    # Run again it does not undo itself.
    seen = await b.command("backups", "restore", "newest", "--json")
    assert json.loads(seen[1])["backup"] != Path(done["saved"]).stem
    # Whatever it had learned is there again, and what it had not yet when the backup was taken comes from the others.
    await until(bus, b, lambda seen: memory_rows(b.database) == before and not seen.project.unsynced)
    assert memory_rows(a.database) == before
    assert rows_of(b.database, "SELECT count(*) FROM pending_messages") == [(0,)]
    assert rows_of(b.database, "SELECT max(seq) FROM sqlite_sequence WHERE name = 'observations'") >= highest
    assert {one["id"] for one in (await command(b, "backups"))["backups"]} > {taken["id"]}

    # Damaged under the running daemon, whose own connection is no obstacle.
    ruin(b)
    code, said = await b.command("push")
    assert code == 1
    assert "not a SQLite database" in said
    code, restored = await typed(b, *remedy_of(said), answer="y")
    assert code == 0, restored
    assert "the damaged database is kept as" in restored
    await until(bus, b, lambda seen: memory_rows(b.database) == before and not seen.project.unsynced)
    assert memory_rows(a.database) == before


async def test_a_damaged_primary_comes_back_without_a_daemon_and_deletes_nothing(
    make_machine: MakeMachine, bus: Bus
) -> None:
    a, b = await pair(make_machine, bus)
    await grown(a, b, bus)
    await command(a, "restore", "--seq", "1", "--yes")
    await a.write(3, "after the backup")
    await until(bus, b, lambda _: memory_rows(a.database) == memory_rows(b.database))
    newest, everything = (await command(a, "backups"))["backups"][0], memory_rows(b.database)
    await a.stop()
    await b.stop()
    ruin(a)
    damaged = a.database.read_bytes()
    code, said = await a.command("push")
    assert code == 1
    remedy = remedy_of(said)
    with held_open(a.database) as pid:
        code, said = await a.command(*remedy, "--yes")
        assert code == 1
        assert f"pid {pid}" in said
        assert a.database.read_bytes() == damaged
    await killed_at(a, "membridge.merge.install:put", *remedy, "--yes")
    done = await command(a, *remedy, "--yes")
    assert done["backup"] == newest["id"]
    (aside,) = [path for path in a.database.parent.glob("*.damaged-*") if not path.name.endswith(("-wal", "-shm"))]
    assert aside.read_bytes() == damaged
    restored = memory_rows(a.database)
    assert restored == memory_rows(Path(newest["path"]))
    assert not everything["observations"] <= restored["observations"]
    await command(a, "pull")
    await command(a, "push")
    await command(b, "pull")
    now = memory_rows(a.database)
    assert memory_rows(b.database) == now
    assert all(everything[table] | restored[table] <= now[table] for table in now)

    # Without any backup a sound database goes back to a snapshot, and the newest one takes the place of a damaged one.
    shutil.rmtree(Path(newest["path"]).parent)
    code, said = await a.command("backups", "restore", "newest", "--yes")
    assert (code, "`membridge restore --seq N`" in said) == (1, True)
    ruin(a)
    code, said = await a.command("backups", "restore", "newest", "--yes")
    assert code == 1
    assert "there is no backup of" in said
    replaced = await command(a, *remedy_of(said))
    assert replaced["outcome"] == "installed"
    assert Path(replaced["set_aside"]).name in {path.name for path in a.database.parent.iterdir()}
    assert memory_rows(a.database) == now


async def test_merges_are_taken_back_beside_a_daemon_which_then_merges_them_again(
    make_machine: MakeMachine, bus: Bus
) -> None:
    a, b = await pair(make_machine, bus)
    await grown(a, b, bus)
    for label in ("first", "second"):
        await a.write(2, label)
        await until(bus, b, lambda _: memory_rows(a.database) == memory_rows(b.database))
    listed = (await command(b, "backups"))["backups"]
    assert [one["full_copy"] for one in listed] == [False] * (len(listed) - 1) + [True]
    assert all(one["size_bytes"] < 100_000 for one in listed[:-1])
    code, shown = await b.command("backups")
    assert code == 0
    assert "full copy" in shown
    assert f"{listed[0]['rows']} rows" in shown
    await b.write(1, "of b")
    await until(bus, b, lambda _: memory_rows(a.database) == memory_rows(b.database))
    before = memory_rows(b.database)
    wanted = listed[1]["id"]
    code, shown = await b.command("backups", "restore", wanted)
    assert code == 1
    assert "would be taken back" in shown
    done = await command(b, "backups", "restore", wanted, "--yes")
    assert done["writes"] >= 2
    assert sum(one["went"] for one in done["tables"] if one["table"] == "observations") >= 4
    assert Path(done["saved"]).suffix == ".undo"
    # What only this machine wrote was never gone, and the rest comes back from the others.
    await until(bus, b, lambda seen: memory_rows(b.database) == before and not seen.project.unsynced)
    assert memory_rows(a.database) == before


def ruin(machine: NodeProcess) -> None:
    """Write over the beginning of the database, as a disk that fails does."""
    execute(machine.database, "PRAGMA wal_checkpoint(TRUNCATE)")
    with machine.database.open("rb+") as file:
        file.write(b"\xa5" * 8192)


@contextmanager
def held_open(path: Path) -> Iterator[int]:
    """Let another program have a file open; return its process id."""
    program = "import sys; file = open(sys.argv[1]); print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", program, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process.pid
        process.communicate(b"\n")
