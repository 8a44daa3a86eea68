"""A way back for every loss: the printed remedy is run where it was printed, and the databases are asked."""

import json

from membridge.bus.connection import Bus
from membridge.claudemem.memory import memory_rows
from tests.fixtures.databases import titles
from tests.fixtures.machines import MakeMachine, until
from tests.fixtures.way_back import counts, delete, grown, killed_at, pair, remedy_of, typed


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
    await killed_at(a, "membridge.snapshot.push:push", "restore", "--seq", str(seq), "--yes")
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
