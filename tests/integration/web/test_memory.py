"""What the kit costs a process that does nothing but listen."""

import asyncio
import os
import sys
from pathlib import Path

from membridge.bus.connection import Bus
from membridge.cli.lean import ALLOCATOR
from tests.fixtures.event_stream import followed
from tests.fixtures.resident import resident
from tests.fixtures.toy_web import Toy, ask

#: Bytes of resident memory of an idle process, with keys, sessions, streams, counters and the document.
MOST = 45 << 20


async def test_an_idle_process_takes_at_most_45_mib(bus: Bus, nats_url: str) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.fixtures.web_process", nats_url,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, env={**os.environ, **ALLOCATOR},
        cwd=Path(__file__).parents[3],
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        async with asyncio.timeout(20.0):
            port, key = (await process.stdout.readline()).decode().split()
        toy = Toy(host="127.0.0.1", port=int(port))
        assert (await ask(toy, "GET", "/openapi.json")).status == 200
        assert (await ask(toy, "GET", "/metrics", key=key)).status == 200
        async with followed(toy, key) as client:
            assert client.answer.status == 200
        assert resident(process.pid) <= MOST
    finally:
        process.stdin.close()
        assert await process.wait() == 0
