"""A database that another program has locked: said within seconds, with its pid, whatever Membridge was about to do."""

import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from membridge.aio import threads
from membridge.aio.deadline import Deadline
from membridge.bus.connection import Bus
from membridge.claudemem import database, patience
from membridge.claudemem.connection import open_live
from membridge.errors import DatabaseBusyError
from membridge.merge import proposal
from membridge.snapshot import backups, standing
from schemas.identity import NodeId, canonical_id
from schemas.proposal import ProposalBundle, ProposedRow
from tests.fixtures.databases import add_observation, execute, make_database, titles
from tests.fixtures.lanes import Box, MakeBox, opened_store, soon
from tests.fixtures.machines import MakeMachine

HOLD = """
import sys
import apsw

connection = apsw.Connection(sys.argv[1])
for statement in sys.argv[2:]:
    connection.execute(statement).fetchall()
print("held", flush=True)
for line in sys.stdin:
    connection.execute(line).fetchall()
    print("done", flush=True)
"""


@contextmanager
def holding(path: Path, *statements: str) -> Iterator["subprocess.Popen[str]"]:
    """Run another program that does `statements` on the database and keeps it open; more come by its input."""
    command = [sys.executable, "-c", HOLD, str(path), *statements]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


@pytest.fixture
async def lane_store(bus: Bus) -> object:
    """The store in NATS alone: locks are not the store's business."""
    async with opened_store("jetstream", bus, None) as store:
        yield store


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Say it after half a second instead of five."""
    monkeypatch.setattr(patience, "SILENCE", 0.5)


def merges(box: Box) -> Callable[[], Awaitable[object]]:
    """Return what takes in a proposal."""
    row = ProposedRow(table="observations", row={"memory_session_id": "m", "title": "offered", "created_at_epoch": 1})
    bundle = ProposalBundle(project=canonical_id("shared"), node=NodeId("b"), device_id=None, base_seq=0, rows=[row])
    return lambda: threads.run(proposal.merge_proposal, box.database, bundle, journal=box.lane.journal, deadline=soon())


#: What locks, and what is then refused: readers are in nobody's way while the database has a WAL.
WRITER, ALONE = ("BEGIN IMMEDIATE",), ("PRAGMA journal_mode = DELETE", "BEGIN EXCLUSIVE")
WAL_ALONE = ("PRAGMA locking_mode = EXCLUSIVE", "BEGIN IMMEDIATE", "UPDATE observations SET title = title", "COMMIT")


@pytest.mark.parametrize(
    ("what", "lock"),
    [
        ("push", ALONE),
        ("push", WAL_ALONE),
        ("pull", WRITER),
        ("pull", ALONE),
        ("status", ALONE),
        ("take in", WRITER),
        ("backup", ALONE),
    ],
)
async def test_a_locked_database_is_said_within_seconds_with_the_holders_pid(
    make_box: MakeBox, what: str, lock: tuple[str, ...]
) -> None:
    a, b = make_box("a"), make_box("b")
    for box in (a, b):
        make_database(box.database)
    await a.push()
    await b.pull()
    add_observation(a.database, "new")
    await a.push()
    acts: dict[str, Callable[[], Awaitable[object]]] = {
        "push": b.push,
        "pull": b.pull,
        "status": lambda: threads.run(standing.numbers, b.lane, deadline=soon()),
        "take in": merges(b),
        "backup": lambda: threads.run(backups.take, b.lane, "merge", deadline=soon()),
    }
    before = titles(b.database)
    with holding(b.database, *lock) as holder:
        began = time.monotonic()
        with pytest.raises(DatabaseBusyError) as refused:
            await acts[what]()
        assert time.monotonic() - began < 20
        assert f"process {holder.pid}" in refused.value.message
        assert str(b.database) in refused.value.message
    # The remedy, once the other program is done, is to try again.
    execute(b.database, "PRAGMA journal_mode = WAL")
    assert titles(b.database) == before
    await acts[what]()


def test_a_lock_that_changes_hands_is_waited_for(claude_mem_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with holding(claude_mem_copy, "BEGIN IMMEDIATE") as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        writes = 0

        def write(seconds: float) -> None:
            """Let the other program write, which is no silence, and let it go in the end."""
            nonlocal writes
            del seconds
            assert holder.stdin is not None
            assert holder.stdout is not None
            writes += 1
            holder.stdin.write(
                "UPDATE sdk_sessions SET custom_title = random(); COMMIT; BEGIN IMMEDIATE\n"
                if writes < 20
                else "COMMIT\n"
            )
            holder.stdin.flush()
            holder.stdout.readline()

        moments = iter(range(10_000))
        monkeypatch.setattr(patience.time, "sleep", write)
        # Each look is two fifths of the patience after the last one.
        monkeypatch.setattr(patience.time, "monotonic", lambda: next(moments) * 0.2)
        with open_live(claude_mem_copy, deadline=Deadline(10_000.0)) as connection:
            connection.run("BEGIN IMMEDIATE; ROLLBACK")
        monkeypatch.undo()
    assert writes == 20


def test_at_the_deadline_the_holder_is_named_too(claude_mem_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "SILENCE", 60.0)
    with (
        holding(claude_mem_copy, *ALONE) as holder,
        pytest.raises(DatabaseBusyError, match=rf"locked by process {holder.pid} \(python"),
    ):
        database.inspect(claude_mem_copy, deadline=Deadline.after(0.3))


async def test_the_command_says_which_process_has_the_database(make_machine: MakeMachine, bus: Bus) -> None:
    a = make_machine("a", memory=True)
    with holding(a.database, *ALONE) as holder:
        code, output = await a.command("push")
    assert code == 1
    assert f"is locked by process {holder.pid}" in output
    assert "Traceback" not in output
