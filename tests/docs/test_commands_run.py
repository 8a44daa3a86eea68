"""Every command block of the README and of the first pages is run, line by line, as it is printed.

The two lines that install are run by CI itself (`.ci/run`, compared in `test_readme.py`). The others are typed here,
on a first machine, which has a memory, and `membridge join` on a second one, which has none. Not literal are the ports,
which tests share, and `LINE`.
"""

import asyncio
import re
import shutil
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from membridge.claudemem.memory import memory_rows
from tests.fixtures.machines import SAMPLE
from tests.fixtures.pace import written_to
from tests.fixtures.ports import free_ports
from tests.fixtures.terminal import PATIENCE, ROOT, UP, Shell, lines_of

PAGES = ("README.md", "docs/getting-started.md", "docs/howto/second-machine.md")


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
                await self.first.left_open(command.replace("0.0.0.0:4222", f"127.0.0.1:{self.first.nats}"))
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
        Shell("first", folder / "first", nats=ports[0], gateway=ports[1]),
        Shell("second", folder / "second", nats=ports[0], gateway=ports[2]),
    )
    made.first.database.parent.mkdir()
    shutil.copyfile(SAMPLE, made.first.database)
    try:
        yield made
    finally:
        await made.second.interrupt()
        await made.first.interrupt()


@pytest.mark.parametrize("page", PAGES)
async def test_every_line_does_what_the_page_says(page: str, tmp_path: Path) -> None:
    by_ci = re.findall(r"^\w+='(python3 -m venv .+)'$", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)
    lines = [line for line in lines_of(page) if line not in by_ci]
    assert [line for line in lines if line.split()[0] not in {"membridge", ".venv/bin/membridge", "export"}] == []
    async with reader(tmp_path) as person:
        for line in lines:
            await person.does(line)
        assert memory_rows(person.second.database) == memory_rows(person.first.database)
        if any("--to old.db" in line for line in lines):
            assert memory_rows(person.first.home / "old.db") == memory_rows(person.first.database)
            assert '"first"' in await person.first.typed("membridge tag --list --json")
