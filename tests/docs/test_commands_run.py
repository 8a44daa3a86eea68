"""Every command block of the README and of getting started is run, line by line, as it is printed.

The two lines that install are run by CI itself (`.ci/run`, compared in `test_readme.py`). The others are typed here,
on a first machine, which has a memory, and `membridge join` on a second one, which has none. Not literal are the ports,
which tests share, and `LINE`.
"""

import asyncio
import os
import re
import shutil
import signal
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from membridge.claudemem.memory import memory_rows
from tests.fixtures.machines import SAMPLE
from tests.fixtures.pace import written_to
from tests.fixtures.ports import free_ports

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "docs/getting-started.md")
#: Seconds until a command must have ended, and until a daemon must have done what it does by itself.
PATIENCE = 60.0
UP = "Membridge is up."


def lines_of(page: str) -> list[str]:
    """Return the lines of a page's command blocks."""
    blocks = re.findall(r"^```sh\n(.*?)^```", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


@dataclass(slots=True)
class Shell:
    """The terminals of one machine: a home, and what runs in it."""

    name: str
    home: Path
    ports: dict[str, int]
    running: list[asyncio.subprocess.Process] = field(default_factory=list[asyncio.subprocess.Process])
    listens: bool = False

    @property
    def database(self) -> Path:
        return self.home / ".claude-mem" / "claude-mem.db"

    @property
    def log(self) -> Path:
        return self.home / "terminal.log"

    def environment(self) -> dict[str, str]:
        own = {} if self.listens else {"MEMBRIDGE_NATS_URL": f"nats://127.0.0.1:{self.ports['4222']}"}
        return {
            "HOME": str(self.home),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "LANG": "C.UTF-8",
            "MEMBRIDGE_NODE_ID": self.name,
            "MEMBRIDGE_GATEWAY_LISTEN": f"127.0.0.1:{self.ports['8733']}",
            **own,
        }

    async def typed(self, line: str, *, folder: Path | None = None) -> str:
        """Run a line that ends by itself; return what it printed."""
        process = await asyncio.create_subprocess_exec(
            "bash", "-c", line, cwd=folder or self.home, env=self.environment(), stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        async with asyncio.timeout(PATIENCE):
            printed, _ = await process.communicate()
        assert process.returncode == 0, f"{line}\n{printed.decode()}\n{self.log.read_text(errors='replace')[-3000:]}"
        return printed.decode()

    async def left_open(self, line: str) -> None:
        """Run a line that goes on in a terminal of its own."""
        with self.log.open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                "bash", "-c", f"exec {line}", cwd=self.home, env=self.environment(), stdin=asyncio.subprocess.DEVNULL,
                stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        self.running.append(process)

    async def interrupt(self) -> None:
        """Press Ctrl-C in each terminal, and wait until it is over."""
        while self.running:
            process = self.running.pop()
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGINT)
            async with asyncio.timeout(PATIENCE):
                await process.wait()

    async def shows(self, wanted: str) -> None:
        """Wait until the terminal shows a text."""
        async with asyncio.timeout(PATIENCE):
            while wanted not in self.log.read_text(errors="replace"):
                assert self.running[-1].returncode is None, self.log.read_text(errors="replace")
                await written_to(self.log)


@dataclass(slots=True)
class Reader:
    """A person who types what a page says."""

    first: Shell
    second: Shell
    line: str = ""

    async def does(self, line: str) -> None:
        """Type one line of the page, where the page says so."""
        command = line.removeprefix(".venv/bin/")
        words = command.split()
        match words[1:2] if words[0] == "membridge" else words[:1]:
            case ["up"]:
                await self.first.interrupt()
                self.first.listens = "--listen" in words
                port = str(self.first.ports["4222"])
                await self.first.left_open(command.replace("0.0.0.0:4222", f"127.0.0.1:{port}"))
                await self.first.shows(UP)
            case ["invite"]:
                self.line = (await self.first.typed(command)).split()[-1]
            case ["join"]:
                self.second.listens = True
                await self.second.left_open(command.replace("LINE", self.line))
                await self._until_both_are_one()
            case ["export"]:
                assert "membridge" in await self.first.typed(f"{line}; command -v membridge", folder=ROOT)
            case _:
                await self.first.typed(command)

    async def _until_both_are_one(self) -> None:
        first, second = self.first.database, self.second.database
        async with asyncio.timeout(PATIENCE):
            while (
                not second.exists()
                or memory_rows(first) != memory_rows(second)
                or f'"{self.second.name}"' not in await self.first.typed("membridge nodes --json")
            ):
                assert self.second.running[-1].returncode is None, self.second.log.read_text(errors="replace")
                await written_to(self.second.log)


@asynccontextmanager
async def reader(folder: Path) -> AsyncGenerator[Reader]:
    """Make two machines; the first one has a memory."""
    ports = free_ports(3)
    made = Reader(
        Shell("first", folder / "first", {"4222": ports[0], "8733": ports[1]}),
        Shell("second", folder / "second", {"4222": ports[0], "8733": ports[2]}),
    )
    made.first.database.parent.mkdir(parents=True)
    made.second.home.mkdir()
    shutil.copyfile(SAMPLE, made.first.database)
    for shell in (made.first, made.second):
        shell.log.touch()
    try:
        yield made
    finally:
        await made.second.interrupt()
        await made.first.interrupt()


@pytest.mark.parametrize("page", PAGES)
async def test_every_line_does_what_the_page_says(page: str, tmp_path: Path) -> None:
    lines = [line for line in lines_of(page) if not line.startswith("python3 -m venv")]
    assert [line for line in lines if line.split()[0] not in {"membridge", ".venv/bin/membridge", "export"}] == []
    async with reader(tmp_path) as person:
        for line in lines:
            await person.does(line)
        assert memory_rows(person.second.database) == memory_rows(person.first.database)
        if any("--to old.db" in line for line in lines):
            assert memory_rows(person.first.home / "old.db") == memory_rows(person.first.database)
            assert '"first"' in await person.first.typed("membridge tag --list --json")
