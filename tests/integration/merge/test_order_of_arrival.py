"""Proposals that arrive in another order than they were made: a primary that froze still holds the earlier ones."""

from pathlib import Path

import msgspec
import pytest

from membridge.claudemem.memory import memory_sum
from schemas.identity import NodeId
from schemas.proposal import ProposalBundle, ProposedRow
from tests.fixtures.databases import add_observation, execute, rows_of
from tests.integration.merge.machines import PROJECT, Machine, sync

SESSIONS = "SELECT content_session_id, memory_session_id, status FROM sdk_sessions ORDER BY 1"


def bundle_of(machine: Machine, rows: list[ProposedRow]) -> bytes:
    """Return some rows of a machine as a proposal."""
    return msgspec.json.encode(
        ProposalBundle(
            project=PROJECT, node=NodeId(machine.name), device_id=f"device-{machine.name}", base_seq=0, rows=rows
        )
    )


def split(machine: Machine) -> tuple[bytes, bytes]:
    """Return what a machine proposes as two proposals: its sessions, and their rows."""
    rows = machine.collect()
    sessions = [row for row in rows if row.table == "sdk_sessions"]
    return bundle_of(machine, sessions), bundle_of(machine, [row for row in rows if row not in sessions])


def add_session(path: Path) -> None:
    """Write a session that has no memory id yet, as claude-mem does first."""
    execute(
        path,
        "INSERT INTO sdk_sessions (content_session_id, project, started_at, started_at_epoch, status) "
        "VALUES ('content-late', 'p', '2026-11-28T00:00:00.000Z', 1795870084003, 'active')",
    )


@pytest.mark.parametrize("pulled_between", [False, True])
def test_rows_before_their_session_end_in_that_session_on_every_machine(
    machines: tuple[Machine, Machine], pulled_between: bool
) -> None:
    a, b = machines
    c = Machine.make("node-c", a.folder.parent)
    c.pull(a.push(), a.source)
    memory = add_observation(b.live, "of b")
    sessions, rows = split(b)

    a.take_in(rows)
    if pulled_between:
        # The session that was made for the row is everywhere before the real one arrives.
        head = a.push()
        b.pull(head, a.source)
        c.pull(head, a.source)
    a.take_in(sessions)
    head = a.push()
    for machine in (b, c):
        machine.pull(head, a.source)
    sync(a, b, c)

    wanted = [row for row in rows_of(b.live, SESSIONS) if row[1] == memory]
    assert len(wanted) == 1
    assert wanted[0][0] != memory
    for machine in (a, c):
        assert [row for row in rows_of(machine.live, SESSIONS) if row[1] == memory] == wanted
    assert memory_sum(a.live) == memory_sum(b.live) == memory_sum(c.live)
    assert a.unsynced() == b.unsynced() == c.unsynced() == 0


def test_a_session_whose_memory_id_comes_after_its_rows_has_them(machines: tuple[Machine, Machine]) -> None:
    a, b = machines
    add_session(b.live)
    a.take_in(split(b)[0])
    b.pull(a.push(), a.source)
    memory = "memory-late"
    execute(
        b.live, "UPDATE sdk_sessions SET memory_session_id = ? WHERE content_session_id = 'content-late'", (memory,)
    )
    execute(
        b.live,
        "INSERT INTO observations (memory_session_id, project, type, title, narrative, created_at, created_at_epoch) "
        "VALUES (?, 'p', 'discovery', 'late', 'n', '2026-11-28T00:00:00.000Z', 1795870084009)",
        (memory,),
    )
    sessions, rows = split(b)

    a.take_in(rows)
    a.take_in(sessions)
    b.pull(a.push(), a.source)
    sync(a, b)

    assert memory_sum(a.live) == memory_sum(b.live)
    assert [row for row in rows_of(a.live, SESSIONS) if row[1] == memory] == [
        row for row in rows_of(b.live, SESSIONS) if row[1] == memory
    ]
    assert rows_of(a.live, "SELECT count(*) FROM sdk_sessions WHERE content_session_id = ?", (memory,)) == [(0,)]
    assert a.unsynced() == b.unsynced() == 0
