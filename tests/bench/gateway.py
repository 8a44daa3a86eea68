"""The gateway: what a thousand followers of events cost, and how fast it answers beside FastAPI.

python -m tests.bench.gateway [--seconds 8] [--only sse|http]
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import uvloop

from membridge.aio.deadline import Deadline
from membridge.bus.connection import Bus, connect
from membridge.bus.kv import Kv
from membridge.bus.options import BusOptions
from membridge.embedded.nats_server import start_nats
from schemas import buckets, subjects
from schemas.web import IssueKeyRequest, Role
from services.web import keys
from tests.bench.tasks_over_nats import ended
from tests.fixtures.ports import free_port
from tests.fixtures.resident import resident

CLIENTS, KEYS, EVENTS, PER_SECOND = 1_000, 20, 200, 20.0
SOON = 60.0


@contextmanager
def service(name: str, url: str, folder: Path, **environment: str) -> Generator[int]:
    """Run a service of Membridge as a process; yield its pid."""
    known = {"PATH": os.environ["PATH"], "HOME": str(folder), "MEMBRIDGE_NATS_URL": url, **environment}
    command = [sys.executable, "-m", "membridge.cli.main", name]
    with ended(process := subprocess.Popen(command, env=known, stderr=(folder / f"{name}.log").open("wb"))):
        yield process.pid


async def answering(port: int) -> None:
    """Wait until a server accepts connections."""
    async with asyncio.timeout(SOON):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.05)
            else:
                writer.close()
                return


@asynccontextmanager
async def connected(url: str) -> AsyncGenerator[Bus]:
    """Connect this process."""
    async with connect(BusOptions(urls=(url,), name="bench"), deadline=Deadline.after(SOON)) as bus:
        yield bus


async def new_key(bus: Bus) -> str:
    """Issue a key that may do everything."""
    wanted = IssueKeyRequest(name="bench", role=Role.ADMIN, scopes=["*"])
    return (await keys.issue(Kv(bus, buckets.API_KEYS), wanted, by="bench", deadline=Deadline.after(SOON))).secret


async def sse(url: str, port: int, gateway: int) -> dict[str, float]:
    """Measure the followers: bytes and seconds."""
    async with connected(url) as bus:
        issued = [await new_key(bus) for _ in range(KEYS)]
        # One comes and goes first: what the first one loads is not what one costs.
        async with followers(port, 1, issued[:1]):
            pass
        before = resident(gateway)
        async with followers(port, CLIENTS, issued) as process:
            connected_rss = resident(gateway)
            began, spent = time.monotonic(), cpu(gateway)
            for number in range(EVENTS):
                subject = subjects.TASK_EVENT.format(task="t", kind="status", by=subjects.COORDINATOR)
                body = {"task_id": "t", "kind": "status", "number": number, "sent": time.monotonic(), "fill": "x" * 300}
                await bus.publish(subject, json.dumps(body, separators=(",", ":")).encode())
                await asyncio.sleep(max(0.0, began + (number + 1) / PER_SECOND - time.monotonic()))
            await asyncio.sleep(1.0)
            after, spent = resident(gateway), cpu(gateway) - spent
            assert process.stdin is not None
            process.stdin.close()
            assert process.stdout is not None
            delays = sorted(json.loads(await process.stdout.read()))
    assert len(delays) == CLIENTS * EVENTS, len(delays)
    return {
        "before": before, "connected": connected_rss - before, "after": after - before,
        "p50": delays[len(delays) // 2], "p99": delays[int(len(delays) * 0.99)], "worst": delays[-1],
        "cpu_per_event": spent / EVENTS,
    }  # fmt: skip


@asynccontextmanager
async def followers(port: int, count: int, shown: list[str]) -> AsyncGenerator[asyncio.subprocess.Process]:
    """Run clients that follow events during the body."""
    command = ["-m", "tests.bench.sse_clients", str(port), "/api/events", str(count), *shown]
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, limit=1 << 26
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(2 * SOON):
            assert await process.stdout.readline() == b"connected\n"
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def cpu(pid: int) -> float:
    """Return the processor's seconds of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", choices=("sse", "http"))
    parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder, port = Path(made), free_port()
        with (
            start_nats(folder / "nats") as server,
            service("coordinator", server.url, folder),
            service("gateway", server.url, folder, MEMBRIDGE_GATEWAY_LISTEN=f"127.0.0.1:{port}") as gateway,
        ):
            uvloop.run(answering(port))
            found = uvloop.run(sse(server.url, port, gateway))
            print(os.getloadavg(), {name: round(value, 4) for name, value in found.items()})  # noqa: T201


if __name__ == "__main__":
    main()
