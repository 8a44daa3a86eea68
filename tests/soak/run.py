"""One soak from beginning to end."""

import asyncio
import random
import secrets
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from membridge.aio.deadline import Deadline
from membridge.bus.connection import connect
from membridge.bus.options import BusOptions
from membridge.objectstore.jetstream import open_jetstream
from membridge.objectstore.protocol import ObjectStore
from membridge.objectstore.s3.client import S3Options, open_s3
from tests.bench.s3 import S3
from tests.soak.cast import Cast, cast
from tests.soak.faults import Troubles
from tests.soak.verdict import Verdict, judge

SAMPLE = Path(__file__).parents[1] / "data" / "claude-mem-13.25.3.db"
#: Seconds until all must agree after the last fault.
AGREE = 90.0


@dataclass(frozen=True, slots=True)
class Report:
    """What a soak did and found."""

    seed: int
    faults: tuple[str, ...]
    verdict: Verdict


async def soak(root: Path, *, seconds: float, seed: int, s3: S3 | None) -> Report:
    """Run three nodes with faults for `seconds`; `s3` is where snapshots go, the embedded store when None."""
    chance = random.Random(seed)
    bucket = s3.make_bucket(f"soak-{secrets.token_hex(6)}") if s3 else ""
    async with cast(root, SAMPLE, s3, bucket) as everybody:
        troubles = Troubles(everybody, chance, [])
        try:
            async with asyncio.timeout(seconds), asyncio.TaskGroup() as group:
                for actor in everybody.actors:
                    group.create_task(_remember(everybody, actor.name, random.Random(chance.random())))
                group.create_task(troubles.run())
        except TimeoutError:
            await troubles.mend()
        async with _store(everybody, s3, bucket) as store:
            verdict = await judge(everybody.actors, store, seconds=AGREE)
    return Report(seed, tuple(troubles.done), verdict)


async def _remember(everybody: Cast, name: str, chance: random.Random) -> None:
    (actor,) = (actor for actor in everybody.actors if actor.name == name)
    while not actor.machine.database.exists():  # noqa: ASYNC110 - the daemon that makes it is another process
        await asyncio.sleep(0.1)
    await actor.remember(chance)


@asynccontextmanager
async def _store(everybody: Cast, s3: S3 | None, bucket: str) -> AsyncGenerator[ObjectStore]:
    if s3 is not None:
        options = S3Options(endpoint=s3.endpoint, access_key=s3.access_key, secret_key=s3.secret_key, bucket=bucket)
        async with open_s3(options) as store:
            yield store
        return
    running = everybody.server.server
    assert running is not None
    bus_options = BusOptions(urls=(running.url,), name="verdict")
    async with (
        connect(bus_options, deadline=Deadline.after(10.0)) as bus,
        open_jetstream(bus) as store,
    ):
        yield store
