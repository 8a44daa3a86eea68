"""A machine that was away while the others learned ten thousand things: it catches up and tells what it learned."""

import asyncio

from membridge.bus.connection import Bus
from membridge.claudemem.memory import memory_rows
from tests.fixtures.machines import MakeMachine, observations_of, until

CHANGES, BATCHES = 10_000, 10


async def test_a_long_offline_node_catches_up_and_proposes_what_it_wrote_meanwhile(
    make_machine: MakeMachine, bus: Bus
) -> None:
    a, b = make_machine("a", memory=True), make_machine("b")
    await a.start()
    await until(bus, a, lambda seen: seen.project.mirror_seq >= 1)
    await b.start()
    before = await observations_of(bus, b)
    await b.stop()
    # Many commits, so that the way to the head has deltas and a new full in it.
    for batch in range(BATCHES):
        await a.write(CHANGES // BATCHES, f"batch {batch}")
        wanted = before + (batch + 1) * CHANGES // BATCHES
        await until(
            bus,
            a,
            lambda seen, wanted=wanted: (
                seen.project.unsynced == 0 and seen.project.rows.get("observations", 0) >= wanted
            ),
        )
        await a.command("push")
    await b.write(30, "learned offline")
    await b.start()
    total = before + CHANGES + 30
    for machine in (b, a):
        await until(
            bus,
            machine,
            lambda seen: (
                (seen.project.rows.get("observations"), seen.project.unsynced, seen.project.lag) == (total, 0, 0)
            ),
            seconds=240.0,
        )
    assert await asyncio.to_thread(memory_rows, a.database) == await asyncio.to_thread(memory_rows, b.database)
