"""A home that nothing can be written to: said in one line, and over when it is over."""

import subprocess
from collections.abc import Generator
from pathlib import Path

import pytest

from membridge.bus.connection import Bus
from membridge.claudemem.memory import memory_rows
from tests.fixtures.machines import MakeMachine, command, until


class Home:
    """A disk of its own that can be made read-only, as a damaged SD card is."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        _mount("-t", "tmpfs", "tmpfs", str(folder))

    def read_only(self) -> None:
        """Let nothing be opened for writing from now on; what is open stays so."""
        # Made elsewhere and laid over the home in one step: a daemon that opens a file
        # on a mount while that is made read-only makes it fail, as busy.
        staged = self.folder.with_name("read-only")
        staged.mkdir(exist_ok=True)
        _mount("--bind", str(self.folder), str(staged))
        _mount("-o", "remount,bind,ro", str(staged))
        _mount("--bind", str(staged), str(self.folder))
        _unmount(staged)

    def writable(self) -> None:
        """End that."""
        _unmount(self.folder)


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True, capture_output=True)


def _unmount(folder: Path) -> None:
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def home(tmp_path: Path) -> Generator[Home]:
    """The home of machine `a`, on a disk of its own; that takes the right to mount one."""
    made = Home(tmp_path / "a")
    yield made
    while made.folder.is_mount():
        made.writable()


@pytest.mark.parametrize("order", ["push", "pull", "node", "up"])
async def test_it_is_one_line(make_machine: MakeMachine, bus: Bus, home: Home, order: str) -> None:
    a = make_machine("a", memory=True)
    home.read_only()
    code, output = await a.command(order)
    assert code == 1
    (line,) = [line for line in output.splitlines() if line.startswith("error:")]
    assert "Read-only file system" in line
    assert "Traceback" not in output


async def test_reading_still_works(make_machine: MakeMachine, bus: Bus, home: Home) -> None:
    a = make_machine("a", memory=True)
    await command(a, "push")
    home.read_only()
    assert (await command(a, "history"))["records"]
    code, output = await a.command("doctor", "--json")
    assert (code, "Traceback" in output) == (1, False)
    assert "Read-only file system" in output


async def test_a_daemon_outlives_it(make_machine: MakeMachine, bus: Bus, home: Home) -> None:
    a, b = make_machine("a", memory=True, PRIMARY_NODE_ID="b"), make_machine("b", PRIMARY_NODE_ID="b", memory=True)
    await b.start()
    await until(bus, b, lambda seen: seen.project.mirror_seq >= 1)
    await a.start()
    await until(bus, a, lambda seen: seen.project.lag == 0 and not seen.project.unsynced)
    assert a.process is not None
    home.read_only()
    try:
        await b.write(3, "while a could not write")
        await until(bus, a, lambda seen: "Read-only file system" in (seen.last_error or ""))
        assert a.process.returncode is None
    finally:
        home.writable()
    await until(bus, a, lambda _: memory_rows(a.database) == memory_rows(b.database))
