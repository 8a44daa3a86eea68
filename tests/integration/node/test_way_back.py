"""A way back for every loss: the printed remedy is run where it was printed, and the databases are asked."""

import asyncio
import json
import os
import pty
import re
import sqlite3
import sys
from contextlib import closing

from membridge.bus.connection import Bus
from membridge.claudemem.memory import memory_rows
from membridge.cli.demonstration.machine import Machine
from tests.fixtures.databases import titles
from tests.fixtures.machines import MakeMachine, until

Rows = dict[str, set[str]]


async def test_the_remedy_of_a_refused_push_brings_back_what_the_live_database_lost(
    make_machine: MakeMachine, bus: Bus
) -> None:
    a, b = await pair(make_machine, bus)
    seq, before = await grown(a, b, bus)
    delete(a, "id > 130")
    await a.write(1, "never pushed")
    code, said = await a.command("push")
    assert code == 1
    assert "would be lost" in said
    code, shown = await a.command("restore", "--seq", str(seq), "--show", "--json")
    preview = json.loads(shown)
    lost = before["observations"] - memory_rows(a.database)["observations"]
    assert (code, preview["applied"], preview["seq"]) == (1, False, seq)
    assert counts(preview) == {"observations": (len(lost), 0, 0, 1), "sdk_sessions": (0, 0, 0, 1)}
    assert {row["title"] for row in preview["rows"] if row["change"] == "kept"} >= {"never pushed learned fact 0"}

    await a.kill()
    await killed_before_its_commit(a, "restore", "--seq", str(seq), "--yes")
    half = memory_rows(a.database)
    assert all(before[table] <= half[table] for table in before)
    code, restored = await typed(a, *remedy_of(said), answer="y")
    assert code == 0, restored
    assert "no row changed" in restored
    assert "kept: 2 rows that no snapshot had" in restored
    assert memory_rows(a.database) == half
    await until(bus, b, lambda _: memory_rows(b.database) == half)
    assert titles(b.database) >= {"never pushed learned fact 0"}
    assert sum(map(len, half.values())) == sum(map(len, before.values())) + 2


async def test_a_secondary_that_lost_rows_gets_them_back_by_the_printed_remedy_and_keeps_its_own(
    make_machine: MakeMachine, bus: Bus
) -> None:
    a, b = await pair(make_machine, bus)
    _, before = await grown(a, b, bus)
    delete(b, "id > 130")
    await b.write(1, "of b alone")
    code, said = await b.command("push")
    assert code == 1
    assert "would be deleted" in said
    code, restored = await b.command(*remedy_of(said), "--yes")
    assert code == 0, restored
    now = memory_rows(b.database)
    assert all(before[table] <= now[table] for table in before)
    assert "of b alone learned fact 0" in titles(b.database)
    await until(bus, a, lambda _: memory_rows(a.database) == now)
    code, said = await b.command("restore", "--seq", "1", "--yes")
    assert code == 1
    assert "run it on a" in said


async def pair(make_machine: MakeMachine, bus: Bus) -> tuple[Machine, Machine]:
    """Return a primary with the sample and a secondary that holds the same."""
    a = make_machine("a", memory=True, PRIMARY_NODE_ID="a")
    b = make_machine("b", PRIMARY_NODE_ID="a")
    await a.start()
    await until(bus, a, lambda seen: seen.project.mirror_seq >= 1)
    await b.start()
    await until(bus, b, lambda seen: seen.project.mirror_seq >= 1 and b.database.exists())
    return a, b


async def grown(a: Machine, b: Machine, bus: Bus) -> tuple[int, Rows]:
    """Let the primary learn ten things more; return the seq that both then are at, and its memory."""
    await a.write(10, "more")
    await until(bus, b, lambda seen: "more learned fact 9" in titles(b.database) and not seen.project.lag)
    seen = await until(bus, a, lambda seen: not seen.project.unsynced and not seen.project.lag)
    return seen.project.head_seq, memory_rows(a.database)


async def killed_before_its_commit(machine: Machine, *arguments: str) -> None:
    """Run a command that dies where it would have committed."""
    script = (
        "import os, sys\n"
        "from membridge.snapshot import push\n"
        "async def die(*_, **__): os._exit(9)\n"
        "push.push = die\n"
        "from membridge.cli.main import main\n"
        "sys.argv = ['membridge', *sys.argv[1:]]\n"
        "main()\n"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, *arguments, env=dict(machine.environment())
    )
    assert await process.wait() == 9


def delete(machine: Machine, where: str) -> None:
    with closing(sqlite3.connect(machine.database, timeout=10)) as database, database:
        database.execute(f"DELETE FROM observations WHERE {where}")


def counts(reply: dict[str, list[dict[str, int]]]) -> dict[object, tuple[int, int, int, int]]:
    """Return what a reply counts of each table: back, removed, changed, kept."""
    return {one["table"]: (one["came"], one["went"], one["changed"], one["kept"]) for one in reply["tables"]}


def remedy_of(said: str) -> list[str]:
    """Return the first command that a message names, without `membridge`."""
    found = re.search(r"`membridge ([^`]+)`", said)
    assert found is not None, said
    return found[1].split()


async def typed(machine: Machine, *arguments: str, answer: str) -> tuple[int, str]:
    """Run a command on a terminal and answer its question."""
    ours, theirs = pty.openpty()
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "membridge.cli.main",
            *arguments,
            stdin=theirs,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=dict(machine.environment()),
        )
        os.write(ours, f"{answer}\n".encode())
        output, _ = await process.communicate()
        return process.returncode or 0, output.decode(errors="replace")
    finally:
        os.close(ours)
        os.close(theirs)
