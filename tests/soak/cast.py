"""Who takes part in a soak: a server that restarts, three nodes behind lines of their own, and what each one wrote."""

import asyncio
import random
import shutil
import signal
import sqlite3
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from membridge.embedded.nats_server import NatsOptions, Supervisor
from membridge.testing.node_process import NodeProcess
from membridge.testing.relay import Relay, relay
from membridge.testing.writer import write
from tests.bench.s3 import S3

PROJECT = "soak"
NAMES = ("laptop", "raspberry", "orange")
#: Seconds between two memories of one node, on average.
PAUSE = 0.4


@dataclass(slots=True)
class Actor:
    """A node: its machine, its lines, and the titles that its agent was told were saved."""

    machine: NodeProcess
    nats: Relay
    store: Relay | None
    saved: list[str] = field(default_factory=list[str])
    stopped: bool = False

    @property
    def name(self) -> str:
        """The node's id."""
        return self.machine.name

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the daemon, if it runs."""
        process = self.machine.process
        if process is not None and process.returncode is None:
            process.send_signal(number)

    async def restart(self) -> None:
        """Kill the daemon as a power cut does, and start it again."""
        await self.machine.kill()
        await self.machine.start()

    async def remember(self, chance: random.Random) -> None:
        """Be this node's agent until cancelled: it learns something every now and then."""
        number = 0
        while True:
            label = f"{self.name}-{number}"
            count = chance.choice((1, 1, 2, 5))
            try:
                await asyncio.to_thread(write, str(self.machine.database), count, label)
            except sqlite3.OperationalError:
                # Locked for longer than the worker waits: it would save it later, we leave it out.
                continue
            self.saved += [f"{label} learned fact {fact}" for fact in range(count)]
            number += 1
            await asyncio.sleep(chance.uniform(0, 2 * PAUSE))


@dataclass(slots=True)
class Cast:
    """Everybody."""

    server: Supervisor
    actors: list[Actor]


@asynccontextmanager
async def cast(root: Path, sample: Path, s3: S3 | None, bucket: str) -> AsyncGenerator[Cast]:
    """Start a server and three nodes that share the memory in `sample`; only the first one has it at first."""
    async with AsyncExitStack() as stack:
        group = await stack.enter_async_context(asyncio.TaskGroup())
        server, ready = Supervisor(NatsOptions(root / "nats", port=-1)), asyncio.Event()
        running = group.create_task(server.run(ready.set), name="nats-server")
        stack.callback(running.cancel)
        await ready.wait()
        assert server.server is not None
        actors = [await _actor(stack, root / name, name, server.server.url, s3, bucket) for name in NAMES]
        first = actors[0].machine.database
        first.parent.mkdir(parents=True)
        await asyncio.to_thread(shutil.copyfile, sample, first)
        try:
            for actor in actors:
                await actor.machine.start()
            yield Cast(server, actors)
        finally:
            for actor in actors:
                actor.signal(signal.SIGCONT)
                await actor.machine.stop()


async def _actor(stack: AsyncExitStack, home: Path, name: str, url: str, s3: S3 | None, bucket: str) -> Actor:
    nats = await stack.enter_async_context(relay("127.0.0.1", int(url.rpartition(":")[2])))
    extra, store = {"MEMBRIDGE_LEADERSHIP_POLICY": "auto", "MEMBRIDGE_LEADERSHIP_GRACE_SECONDS": "1"}, None
    if s3 is not None:
        address = urlsplit(s3.endpoint)
        store = await stack.enter_async_context(relay(str(address.hostname), int(address.port or 80)))
        extra |= {
            "MEMBRIDGE_STORE": "s3",
            "MINIO_ENDPOINT": f"http://127.0.0.1:{store.port}",
            "MINIO_ACCESS_KEY": s3.access_key,
            "MINIO_SECRET_KEY": s3.secret_key,
            "MINIO_BUCKET": bucket,
        }
    machine = NodeProcess(name, home, f"nats://127.0.0.1:{nats.port}", PROJECT, extra=extra)
    return Actor(machine, nats, store)
