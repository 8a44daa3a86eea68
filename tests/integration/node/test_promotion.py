"""A node with an empty memory, or one that lags, is made primary over a running one: nobody loses a row."""

from contextlib import closing

import apsw
import pytest

from membridge.bus.connection import Bus
from membridge.claudemem.memory import memory_rows
from membridge.testing.node_process import NodeProcess
from schemas.leadership import Role
from tests.fixtures.machines import MakeMachine, command, until


def emptied(machine: NodeProcess) -> None:
    """Leave nothing in a database but its tables, as a claude-mem that was just installed."""
    with closing(apsw.Connection(str(machine.database))) as connection:
        for table in ("observations", "session_summaries", "user_prompts", "sdk_sessions"):
            connection.execute(f"DELETE FROM {table}")
        connection.execute("DELETE FROM sqlite_sequence")


@pytest.mark.parametrize("serves", [True, False], ids=["lagging", "new"])
async def test_over_a_running_primary(make_machine: MakeMachine, bus: Bus, serves: bool) -> None:
    a, b = make_machine("a", memory=True, PRIMARY_NODE_ID="a"), make_machine("b", memory=True, PRIMARY_NODE_ID="a")
    emptied(b)
    await a.start()
    await until(bus, a, lambda seen: seen.project.role is Role.PRIMARY and seen.project.mirror_seq >= 1)
    if serves:
        await b.start()
        await until(bus, b, lambda seen: seen.project.mirror_seq >= 1)
        await b.kill()
    await a.write(5, "meanwhile on a")
    await until(bus, a, lambda seen: not seen.project.unsynced)
    before = memory_rows(a.database)
    await b.start()
    # It is present, whatever it has taken in by then.
    await until(bus, b, lambda _: True)
    await command(a, "leader", "select", "b")
    await until(bus, b, lambda seen: seen.project.role is Role.PRIMARY)
    await b.write(2, "first of the new primary")
    for one in (a, b):
        await until(
            bus, one, lambda seen: memory_rows(a.database) == memory_rows(b.database) and not seen.project.unsynced
        )
    assert all(set(before[table]) <= set(rows) for table, rows in memory_rows(b.database).items())
    assert (await command(b, "verify"))["findings"] == []


async def test_a_primary_that_has_nothing_lets_who_has_a_memory_lead(make_machine: MakeMachine, bus: Bus) -> None:
    # A board that is to be the primary and never had claude-mem, and a laptop that has it.
    board = make_machine("board", PRIMARY_NODE_ID="board")
    laptop = make_machine("laptop", memory=True, PRIMARY_NODE_ID="board")
    await board.start()
    await until(bus, board, lambda seen: seen.project.role is Role.PRIMARY)
    await laptop.start()
    await until(bus, laptop, lambda seen: seen.project.mirror_seq >= 1)
    await until(bus, board, lambda seen: seen.project.mirror_seq >= 1 and board.database.exists())
    await until(bus, board, lambda _: memory_rows(board.database) == memory_rows(laptop.database))
