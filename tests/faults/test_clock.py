"""The wall clock jumps by a day, forward and back, under two running nodes: nobody loses a lease, a row or an order."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from membridge.bus.connection import Bus
from membridge.claudemem.memory import memory_rows
from membridge.testing.node_process import NodeProcess
from schemas.leadership import Role
from schemas.node import StatusReply
from tests.faults import shim
from tests.fixtures.machines import MakeMachine, command, until

DAY = 86_400
SOURCE = Path(__file__).with_name("clock.c")


@pytest.fixture(scope="session")
def clock_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shim.build(tmp_path_factory.mktemp("clock"), SOURCE)


class Clock:
    """The wall clock of one machine."""

    def __init__(self, library: Path, file: Path) -> None:
        self._file = file
        self.extra = {"LD_PRELOAD": str(library), "CLOCK_OFFSET": str(file)}
        self.set(0)

    def set(self, seconds: int) -> None:
        """Move it by so many seconds from the true time."""
        part = self._file.with_suffix(".part")
        part.write_text(str(seconds))
        part.replace(self._file)


def in_step(a: NodeProcess, b: NodeProcess) -> bool:
    return b.database.exists() and memory_rows(a.database) == memory_rows(b.database)


@pytest.mark.parametrize("jump", [DAY, -DAY])
@pytest.mark.parametrize("who", ["a", "b"])
async def test_a_day_more_or_less_changes_nothing(
    make_machine: MakeMachine, bus: Bus, clock_library: Path, tmp_path: Path, jump: int, who: str
) -> None:
    clocks = {name: Clock(clock_library, tmp_path / f"{name}.clock") for name in "ab"}
    a = make_machine("a", memory=True, PRIMARY_NODE_ID="a", **clocks["a"].extra)
    b = make_machine("b", PRIMARY_NODE_ID="a", **clocks["b"].extra)

    async def settled() -> StatusReply:
        await until(bus, b, lambda seen: in_step(a, b) and not seen.project.unsynced)
        return await until(bus, a, lambda seen: seen.project.role is Role.PRIMARY and not seen.project.unsynced)

    await a.start()
    await until(bus, a, lambda seen: seen.project.mirror_seq >= 1)
    await b.start()
    before = await settled()
    for offset in (jump, 0):
        clocks[who].set(offset)
        await a.write(2, f"learned on a at {offset}")
        await b.write(2, f"learned on b at {offset}")
        after = await settled()
        assert (after.project.epoch, after.primary) == (before.project.epoch, "a")
    history = (await command(a, "history"))["records"]
    assert [one["seq"] for one in history] == sorted((one["seq"] for one in history), reverse=True)
    assert (await command(a, "verify"))["findings"] == []
    assert (await command(a, "gc"))["seqs"] == []


async def test_the_shim_moves_the_clock(
    make_machine: MakeMachine, bus: Bus, clock_library: Path, tmp_path: Path
) -> None:
    clock = Clock(clock_library, tmp_path / "a.clock")
    clock.set(DAY)
    a = make_machine("a", memory=True, **clock.extra)
    await command(a, "push")
    (made,) = (await command(a, "history"))["records"]
    ahead = datetime.fromisoformat(made["created_at"]) - datetime.now(UTC)
    assert abs(ahead - timedelta(seconds=DAY)) < timedelta(minutes=2)
    code, doctor = await a.command("doctor")
    assert code == 1
    assert "s from the NATS server's" in doctor
