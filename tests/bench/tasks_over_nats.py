"""Lifecycles of tasks the whole way: a client, a coordinator and workers on a nats-server, each a process of its own.

What the runtime alone does is in `tests.bench.tasks`; this adds what everybody pays who uses it: requests to a
coordinator, orders to a worker, its report, leases and ties in KV, events, and a server that syncs what it keeps.
"""

import asyncio
import os
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

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


def measure(database_url: str, folder: Path, *, seconds: float, in_flight: int, prompt: str) -> float:
    """Return lifecycles a second, from a submission to the news of its completion."""
    with start_nats(folder / "nats") as server, _coordinator(server.url, database_url, folder), _workers(server.url):
        return uvloop.run(_submit(server.url, seconds=seconds, in_flight=in_flight, prompt=prompt))


@contextmanager
def _coordinator(url: str, database_url: str, folder: Path) -> Generator[None]:
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "MEMBRIDGE_NATS_URL": url}
    if database_url:
        environment["DATABASE_URL"] = database_url
    with _process([sys.executable, "-m", "membridge.cli.main", "coordinator"], environment):
        yield


@contextmanager
def _workers(url: str) -> Generator[None]:
    with _process([sys.executable, "-m", "tests.bench.tasks_over_nats", url], dict(os.environ)):
        yield


@contextmanager
def _process(command: list[str], environment: dict[str, str]) -> Generator[None]:
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait()


@asynccontextmanager
async def _connected(url: str, name: str) -> AsyncGenerator[Bus]:
    async with connect(BusOptions(urls=(url,), name=name), deadline=Deadline.after(SOON)) as bus:
        yield bus


async def _submit(url: str, *, seconds: float, in_flight: int, prompt: str) -> float:
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
            began = time.perf_counter()
            async with asyncio.TaskGroup() as places:
                tasks = [places.create_task(place(began + seconds)) for _ in range(in_flight)]
            rate = sum(task.result() for task in tasks) / (time.perf_counter() - began)
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
