"""The scenario of the demonstration: its steps in order, and the result of each check."""

import asyncio
import shutil
import sqlite3
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path

import msgspec

from membridge.aio import threads
from membridge.aio.deadline import Deadline
from membridge.claudemem import database, memory
from membridge.embedded.nats_server import start_nats
from membridge.embedded.sample import sample_database
from membridge.errors import MembridgeError
from membridge.testing.node_process import NodeProcess
from schemas.wire import Wire

PROJECT = "demo"
#: Seconds one step may take, and seconds between two looks at the databases.
STEP, LOOK = 20.0, 0.05


class CheckResult(Wire, frozen=True, kw_only=True):
    """One thing that was checked."""

    checked: str
    passed: bool
    seconds: float
    detail: str = ""


Report = Callable[[CheckResult], None]


async def run_scenario(folder: str, report: Report) -> list[CheckResult]:
    """Run the demonstration in `folder`; pass each finding to `report` as it comes, and return them all."""
    root = Path(folder)
    with start_nats(root / "nats") as server:
        one = NodeProcess("laptop", root / "laptop", server.url, PROJECT)
        other = NodeProcess("raspberry", root / "raspberry", server.url, PROJECT)
        try:
            return await _Scenario(one, other, report).run()
        finally:
            for node in (one, other):
                await node.stop()


class _Scenario:
    def __init__(self, one: NodeProcess, other: NodeProcess, report: Report) -> None:
        self._one, self._other, self._report = one, other, report
        self._findings: list[CheckResult] = []

    async def run(self) -> list[CheckResult]:
        one, other = self._one, self._other
        await threads.run(_give_sample, one)
        steps: list[tuple[str, Callable[[], Awaitable[str]]]] = [
            ("the laptop's memory is committed", self._first_commit),
            ("a new machine gets the whole memory", self._second_machine),
            ("10 facts of the laptop reach the Raspberry", lambda: self._learn(one, 10, "laptop")),
            ("10 facts of the Raspberry reach the laptop", lambda: self._learn(other, 10, "raspberry")),
            ("both learn 25 facts at the same time", self._both_learn),
            ("the laptop is cut off; the Raspberry takes over", self._take_over),
            ("what it learned meanwhile is committed", lambda: self._learn_alone(other, 5, "raspberry-alone")),
            ("the laptop comes back with facts of its own", self._comes_back),
            ("both databases are sound, full-text search included", self._sound),
        ]
        for name, step in steps:
            await self._check(name, step)
            if not self._findings[-1].passed:
                break
        return self._findings

    async def _check(self, name: str, step: Callable[[], Awaitable[str]]) -> None:
        began = time.monotonic()
        try:
            async with asyncio.timeout(STEP):
                detail, passed = await step(), True
        except TimeoutError:
            detail, passed = await threads.run(self._difference), False
        except (MembridgeError, RuntimeError, sqlite3.Error) as error:
            detail, passed = str(error), False
        result = CheckResult(
            checked=name, passed=passed, seconds=round(time.monotonic() - began, 2), detail="" if passed else detail
        )
        self._findings.append(result)
        self._report(result)

    async def _first_commit(self) -> str:
        await self._one.start()
        await self._until(lambda: self._head(self._one, at_least=1))
        return ""

    async def _second_machine(self) -> str:
        await self._other.start()
        await self._equal()
        return ""

    async def _learn(self, node: NodeProcess, count: int, label: str) -> str:
        await node.write(count, label)
        await self._equal()
        return ""

    async def _both_learn(self) -> str:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._one.write(25, "laptop-together"))
            group.create_task(self._other.write(25, "raspberry-together"))
        await self._equal()
        return ""

    async def _take_over(self) -> str:
        await self._one.kill()
        code, output = await self._other.command("leader", "select", self._other.name)
        if code:
            raise RuntimeError(output)
        await self._until(lambda: self._leads(self._other))
        return ""

    async def _learn_alone(self, node: NodeProcess, count: int, label: str) -> str:
        before = await self._seq(node)
        await node.write(count, label)
        await self._until(lambda: self._head(node, at_least=before + 1))
        return ""

    async def _comes_back(self) -> str:
        await self._one.write(5, "laptop-offline")
        await self._one.start()
        await self._equal()
        return ""

    async def _sound(self) -> str:
        for node in (self._one, self._other):
            await threads.run(database.quick_check, node.database, deadline=Deadline.after(STEP))
            await threads.run(_check_search, node.database)
        return ""

    async def _equal(self) -> None:
        await self._until(self._is_equal)

    async def _is_equal(self) -> bool:
        if not self._other.database.exists():
            return False
        return not await threads.run(self._difference)

    def _difference(self) -> str:
        try:
            one, other = memory.memory_rows(self._one.database), memory.memory_rows(self._other.database)
        except MembridgeError as error:
            return error.message
        missing = {table: (rows - other[table], other[table] - rows) for table, rows in one.items() if table in other}
        return ", ".join(
            f"{table}: {len(lacks)} missing on {self._other.name}, {len(extra)} on {self._one.name}"
            for table, (lacks, extra) in missing.items()
            if lacks or extra
        )

    async def _head(self, node: NodeProcess, *, at_least: int) -> bool:
        return await self._seq(node) >= at_least

    async def _seq(self, node: NodeProcess) -> int:
        return (await self._status(node)).project.mirror_seq

    async def _leads(self, node: NodeProcess) -> bool:
        return (await self._status(node)).project.role == "primary"

    async def _status(self, node: NodeProcess) -> "_Status":
        code, output = await node.command("status", "--json")
        if code:
            return _Status()
        return msgspec.json.decode(output.encode(), type=_Status)

    async def _until(self, condition: Callable[[], Awaitable[bool]]) -> None:
        # Other processes write the databases and report nothing when they are done: polling is the only way.
        while not await condition():  # noqa: ASYNC110 - as said above
            await asyncio.sleep(LOOK)


class _ProjectStatus(msgspec.Struct):
    role: str = "none"
    mirror_seq: int = 0


class _Status(msgspec.Struct):
    project: _ProjectStatus = msgspec.field(default_factory=_ProjectStatus)


def _check_search(database_path: Path) -> None:
    """Let SQLite compare the full-text indexes with their tables; raises DatabaseError where they differ."""
    with closing(sqlite3.connect(database_path, timeout=STEP)) as connection, connection:
        for table in ("observations_fts", "session_summaries_fts", "user_prompts_fts"):
            connection.execute(f"INSERT INTO {table}({table}) VALUES ('integrity-check')")  # noqa: S608 - our own names


def _give_sample(node: NodeProcess) -> None:
    node.database.parent.mkdir(parents=True)
    shutil.copyfile(sample_database(), node.database)
