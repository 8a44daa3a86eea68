"""A power cut takes from a machine what its programs never forced to the disk, and nothing from the others.

The shim keeps aside what each file of claude-mem's folder was when it was last forced to the disk. A power cut is then:
every process killed, and those contents in the files' place. What Membridge has of its own is kept whole, which is the
worst that can happen: it knows of rows that the database has lost.
"""

import shutil
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import apsw
import pytest

from membridge.bus.connection import Bus
from membridge.claudemem.memory import memory_rows
from membridge.testing.node_process import NodeProcess
from tests.faults import shim
from tests.faults.shim import Mode, State
from tests.fixtures.databases import Writer, connect, make_database, titles
from tests.fixtures.machines import MakeMachine, command, until


@dataclass(slots=True)
class Power:
    """The shim for one machine's claude-mem folder."""

    library: Path
    state: State

    def watch(self, machine: NodeProcess) -> None:
        """Keep aside what is forced to the disk from now on; what is there now is on it."""
        folder = machine.database.parent
        shutil.copytree(folder, disk_of(machine))
        self.state.set(Mode.POWER, 0, folder)
        self.state.arm()

    def environment(self) -> dict[str, str]:
        """Return what a machine's processes are started with."""
        return {"LD_PRELOAD": str(self.library), "IOFAULT_STATE": str(self.state.path)}


def disk_of(machine: NodeProcess) -> Path:
    """Return the folder of what a power cut would leave."""
    folder = machine.database.parent
    return folder.with_name(f"{folder.name}.disk")


async def cut(machine: NodeProcess) -> None:
    """Cut a machine's power: its worker's connections must be idle, or it would not be a power cut but a crash."""
    await machine.kill()
    folder = machine.database.parent
    for file in folder.glob("claude-mem.db*"):
        file.unlink()
    for file in disk_of(machine).glob("claude-mem.db*"):
        if not file.name.endswith("-shm"):
            shutil.copyfile(file, folder / file.name)


@pytest.fixture
def power(tmp_path: Path) -> Generator[Power]:
    """The shim, built."""
    state = State(tmp_path / "state")
    yield Power(shim.build(tmp_path), state)
    state.close()


@pytest.fixture
def a(make_machine: MakeMachine, power: Power) -> NodeProcess:
    """A primary whose power can be cut; it has a memory."""
    machine = make_machine("a", PRIMARY_NODE_ID="a", **power.environment())
    make_database(machine.database)
    power.watch(machine)
    return machine


async def test_a_power_cut_deletes_for_nobody(make_machine: MakeMachine, bus: Bus, a: NodeProcess) -> None:
    b = make_machine("b", PRIMARY_NODE_ID="a")
    await a.start()
    await b.start()
    await until(bus, b, lambda seen: seen.project.mirror_seq >= 1 and b.database.exists())
    with Writer(a.database, name="pushed") as worker, closing(connect(a.database)) as editor:
        for number in range(3):
            worker.observation(worker.session(), title=f"pushed {number}")
        editor.execute("UPDATE observations SET title = 'edited and pushed' WHERE id = 1").fetchall()
        await until(bus, b, lambda _: "pushed 2" in titles(b.database) and "edited and pushed" in titles(b.database))
        before = memory_rows(b.database)
        await cut(a)
        assert memory_rows(a.database) == before, "what was pushed was on the disk"
    with Writer(a.database, name="after") as worker:
        worker.observation(worker.session(), title="after the power cut")
    await a.start()
    await until(bus, b, lambda _: "after the power cut" in titles(b.database))
    await until(bus, a, lambda seen: not seen.project.unsynced)
    assert all(rows <= memory_rows(b.database)[table] for table, rows in before.items())


async def test_what_was_not_pushed_yet_may_be_gone_and_a_deletion_that_was_kept_is_one(
    make_machine: MakeMachine, bus: Bus, a: NodeProcess
) -> None:
    b = make_machine("b", PRIMARY_NODE_ID="a")
    with closing(connect(a.database)) as worker:
        worker.execute("DELETE FROM observations WHERE id = 7").fetchall()
        ((kept,),) = worker.execute("SELECT title FROM observations WHERE id = 8")
        await command(a, "push", "--snapshot")
        worker.execute("DELETE FROM observations WHERE id = 8").fetchall()
        await cut(a)
    assert kept in titles(a.database), "the newest commit was in memory alone"
    await command(a, "push", "--snapshot")
    await command(b, "pull")
    assert memory_rows(a.database) == memory_rows(b.database)
    assert kept in titles(b.database)
    with closing(connect(a.database)) as worker:
        worker.execute("DELETE FROM observations WHERE id = 8").fetchall()
    await command(a, "push", "--snapshot")
    await command(b, "pull")
    assert kept not in titles(b.database)


async def test_a_power_cut_of_a_secondary_proposes_no_deletion(
    make_machine: MakeMachine, bus: Bus, power: Power
) -> None:
    a = make_machine("a", PRIMARY_NODE_ID="a", memory=True)
    b = make_machine("b", PRIMARY_NODE_ID="a", **power.environment())
    make_database(b.database)
    power.watch(b)
    await a.start()
    await b.start()
    with Writer(b.database, name="proposed") as worker:
        worker.observation(worker.session(), title="proposed and taken in")
        await until(bus, a, lambda _: "proposed and taken in" in titles(a.database))
        # Its own row comes back to it in a snapshot: nothing is written here, and the mirror knows the row from now on.
        await until(bus, b, lambda seen: seen.project.lag == 0 and not seen.project.unsynced)
        before = memory_rows(a.database)
        await cut(b)
    assert memory_rows(b.database) == before
    await b.start()
    await until(bus, b, lambda seen: seen.project.lag == 0 and not seen.project.unsynced)
    await a.write(1, "after")
    await until(bus, b, lambda _: memory_rows(a.database) == memory_rows(b.database))
    assert all(rows <= memory_rows(a.database)[table] for table, rows in before.items())


async def test_the_wal_of_the_worker_is_never_folded_in(bus: Bus, a: NodeProcess) -> None:
    with closing(connect(a.database)) as worker:
        worker.execute("UPDATE observations SET title = 'in the WAL' WHERE id = 1").fetchall()
        file = a.database.read_bytes()
        await command(a, "push", "--snapshot")
        assert a.database.read_bytes() == file
        assert (disk_of(a) / "claude-mem.db-wal").stat().st_size > 0
    with closing(apsw.Connection(str(a.database))) as left:
        assert left.execute("SELECT title FROM observations WHERE id = 1").fetchall() == [("in the WAL",)]
