"""A thousand followers of `GET /api/events`, in a process of their own."""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from membridge.aio.deadline import Deadline
from membridge.bus.connection import Bus, connect
from membridge.bus.kv import Kv
from membridge.bus.options import BusOptions
from schemas import buckets, subjects
from schemas.web import IssueKeyRequest, Role
from services.web import keys
from tests.bench.gateway_process import SOON, cpu
from tests.fixtures.resident import resident

CLIENTS, KEYS, EVENTS, PER_SECOND = 1_000, 20, 200, 20.0


@dataclass(frozen=True, slots=True)
class Followers:
    """Resident bytes of the gateway: idle, and more with all of them, before and after the events; seconds from the
    publication of an event to its receipt; milliseconds of the gateway's processor for one event to all.
    """

    idle: int
    connected: int
    after: int
    p50: float
    p99: float
    slowest: float
    milliseconds: float


@asynccontextmanager
async def connected(url: str) -> AsyncGenerator[Bus]:
    """Connect this process."""
    async with connect(BusOptions(urls=(url,), name="bench"), deadline=Deadline.after(SOON)) as bus:
        yield bus


async def new_key(bus: Bus) -> str:
    """Issue a key that may do everything."""
    wanted = IssueKeyRequest(name="bench", role=Role.ADMIN, scopes=["*"])
    return (await keys.issue(Kv(bus, buckets.API_KEYS), wanted, by="bench", deadline=Deadline.after(SOON))).secret


async def measure(url: str, port: int, gateway: int) -> Followers:
    """Measure them."""
    async with connected(url) as bus:
        idle = resident(gateway)
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
    return Followers(
        idle=idle,
        connected=connected_rss - before,
        after=after - before,
        p50=delays[len(delays) // 2],
        p99=delays[int(len(delays) * 0.99)],
        slowest=delays[-1],
        milliseconds=1e3 * spent / EVENTS,
    )


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
