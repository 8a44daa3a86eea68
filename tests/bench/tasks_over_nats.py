"""Lifecycles of tasks the whole way: a client, a coordinator and workers on a nats-server, each a process of its own.

What the runtime alone does is in `tests.bench.tasks`; this adds what everybody pays who uses it: requests to a
coordinator, orders to a worker, its report, events, and a server that syncs what it keeps.
"""

import asyncio
import os
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvloop

from membridge.aio.deadline import Deadline
from membridge.bus.connection import Bus, connect
from membridge.bus.options import BusOptions
from membridge.bus.rpc import RpcClient
from membridge.embedded.nats_server import start_nats
from membridge.errors import MembridgeError
from membridge.worker.presence import PresencePublisher
from membridge.worker.unreturned import Unreturned
from membridge.worker.worker import AttemptResult, Worker
from schemas import subjects
from schemas.identity import NodeId
from schemas.leases import Order
from schemas.node import Empty, NodePresence
from schemas.results import Metrics, ResultStatus
from schemas.task_events import TaskEvent
from schemas.tasks import TaskSpec, TaskStatus
from schemas.wire import decode
from schemas.workers import Capabilities

WORKERS = ("w0", "w1", "w2", "w3")
SOON = 60.0


@dataclass(frozen=True, slots=True)
class Whole:
    """Lifecycles a second, from a submission to the news of its completion; and the processor's milliseconds that each
    process took for one.
    """

    rate: float
    milliseconds: dict[str, float]


def measure(
    database_url: str, folder: Path, *, seconds: float, in_flight: int, prompt: str, profile: Path | None = None
) -> Whole:
    """Measure one database. With `profile`, py-spy writes the coordinator's stacks there."""
    with (
        start_nats(folder / "nats") as server,
        _coordinator(server.url, database_url, folder) as coordinator,
        _workers(server.url) as workers,
    ):
        processes = {"client": os.getpid(), "coordinator": coordinator, "workers": workers, "nats-server": server.pid}
        if "host=" in database_url:
            # The line of a server that has begun: its process.
            pid = Path(database_url.partition("host=")[2], "postmaster.pid").read_text(encoding="ascii").split()[0]
            processes["PostgreSQL"] = int(pid)
        spent = list[dict[str, float]]()

        def look() -> None:
            spent.append({name: _cpu(pid) for name, pid in processes.items()})

        with _profiled(coordinator, profile, seconds):
            rate = uvloop.run(_submit(server.url, look, seconds=seconds, in_flight=in_flight, prompt=prompt))
        lifecycles = rate * seconds
        return Whole(rate, {name: 1e3 * (spent[1][name] - spent[0][name]) / lifecycles for name in processes})


def _cpu(pid: int) -> float:
    """Return the processor's seconds of a process, and of those that it has forked and that run."""
    spent, ticks = 0.0, os.sysconf("SC_CLK_TCK")
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            name, _, rest = stat.read_text(encoding="utf-8").rpartition(")")
            fields = rest.split()
            if int(name.split()[0]) == pid or (int(fields[1]) == pid and pid != os.getpid()):
                spent += (int(fields[11]) + int(fields[12])) / ticks
    return spent


@contextmanager
def _profiled(pid: int, stacks: Path | None, seconds: float) -> Generator[None]:
    if stacks is None:
        yield
        return
    command = ["py-spy", "record", "--gil", "-r", "400", "-d", str(round(seconds)), "-f", "raw", "-o", str(stacks)]
    spy = subprocess.Popen([*command, "-p", str(pid)], stdout=subprocess.DEVNULL)
    yield
    spy.wait(timeout=SOON)


@contextmanager
def _coordinator(url: str, database_url: str, folder: Path) -> Generator[int]:
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "MEMBRIDGE_NATS_URL": url}
    if database_url:
        environment["DATABASE_URL"] = database_url
    command = [sys.executable, "-m", "membridge.cli.main", "coordinator"]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    with ended(process):
        yield process.pid


@contextmanager
def _workers(url: str) -> Generator[int]:
    command = [sys.executable, "-m", "tests.bench.tasks_over_nats", url]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    with ended(process):
        yield process.pid


@contextmanager
def ended(process: "subprocess.Popen[Any]") -> Generator[None]:
    """End a process with the body."""
    try:
        yield
    finally:
        process.terminate()
        process.wait()


@asynccontextmanager
async def _connected(url: str, name: str) -> AsyncGenerator[Bus]:
    async with connect(BusOptions(urls=(url,), name=name), deadline=Deadline.after(SOON)) as bus:
        yield bus


async def _submit(url: str, look: Callable[[], None], *, seconds: float, in_flight: int, prompt: str) -> float:
    completed: dict[str, asyncio.Event] = {}
    async with _connected(url, "bench client") as bus:
        client = RpcClient(bus)
        await _until_all_work(client)
        every = subjects.TASK_EVENT.format(task="*", kind="status", by=subjects.COORDINATOR)
        async with bus.subscribe(every, bound=65_536) as news, asyncio.TaskGroup() as group:

            async def hear() -> None:
                async for message in news:
                    event = decode(message.body, TaskEvent)
                    if event.status is TaskStatus.COMPLETED:
                        completed.setdefault(event.task_id, asyncio.Event()).set()

            async def place(until: float) -> int:
                done = 0
                while time.perf_counter() < until:
                    spec = TaskSpec(context_id=uuid.uuid4().hex, agent_slug="a", prompt=prompt)
                    task = await client.request(subjects.SUBMIT, spec, deadline=Deadline.after(SOON))
                    await completed.setdefault(task.id, asyncio.Event()).wait()
                    del completed[task.id]
                    done += 1
                return done

            hearing = group.create_task(hear())
            look()
            began = time.perf_counter()
            async with asyncio.TaskGroup() as places:
                tasks = [places.create_task(place(began + seconds)) for _ in range(in_flight)]
            rate = sum(task.result() for task in tasks) / (time.perf_counter() - began)
            look()
            hearing.cancel()
    return rate


async def _until_all_work(client: RpcClient) -> None:
    async with asyncio.timeout(SOON):
        while True:
            with suppress(MembridgeError):
                stats = await client.request(subjects.STATS, Empty(), deadline=Deadline.after(SOON))
                if stats.workers.get("online", 0) == len(WORKERS):
                    return
            await asyncio.sleep(0.05)


async def _work(url: str) -> None:
    """Run the workers of a process: done as soon as they are asked."""
    async with _connected(url, "bench workers") as bus, asyncio.TaskGroup() as group:
        for name in WORKERS:
            capabilities = Capabilities(claude_cli=True, max_concurrency=32)
            nowhere = Unreturned(Path("/nonexistent/unreturned.json"))
            worker = Worker(bus, NodeId(name), capabilities, _done, changed=lambda: None, unreturned=nowhere)

            async def described(worker: Worker = worker, name: str = name) -> NodePresence:
                said = worker.presence()
                return NodePresence(node=NodeId(name), version="", python="", os="", arch="", worker=said)

            serving = asyncio.Event()
            group.create_task(worker.run(serving.set))
            await serving.wait()
            group.create_task(PresencePublisher(bus, NodeId(name), described).run(lambda: None))


async def _done(order: Order) -> AttemptResult:
    del order
    return AttemptResult(ResultStatus.SUCCESS, Metrics(duration_ms=0), output="ok")


if __name__ == "__main__":
    uvloop.run(_work(sys.argv[1]))
