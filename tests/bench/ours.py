"""Membridge's own numbers: two lanes over the scene's S3, then two daemons as processes.

The transfer child is warm where a daemon's is, that is from the second push on; `Ours.push_seconds` is a median.
"""

import asyncio
import shutil
import statistics
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, closing
from pathlib import Path

import apsw

from membridge.aio.deadline import Deadline
from membridge.bus.connection import Bus, connect
from membridge.bus.kv import open_bucket
from membridge.bus.options import BusOptions
from membridge.bus.streams import ensure_streams
from membridge.claudemem.sql import Connection
from membridge.commits.progress import ProgressTracker
from membridge.embedded.nats_server import NatsServer, start_nats
from membridge.merge.conflicts import Journal
from membridge.merge.row_index import RowIndex
from membridge.objectstore.encryption.guard import PlainStore
from membridge.objectstore.encryption.keys import KeySource
from membridge.objectstore.encryption.store import EncryptedStore
from membridge.objectstore.s3.client import S3Options, open_s3
from membridge.snapshot import pull, push
from membridge.snapshot.lane import Lane
from membridge.testing.node_process import NodeProcess
from schemas import buckets
from schemas.events import Event
from schemas.identity import NodeId, canonical_id
from tests.bench.database import add_observations, new_random
from tests.bench.peers import NEW
from tests.bench.results import Ours, Scene
from tests.bench.s3 import uploaded

#: Pushes and pulls that a median is taken of.
ROUNDS = 5
PROJECT = "bench"
#: Seconds that anything here may take.
LIMIT = 120.0


def measure(scene: Scene) -> Ours:
    """Return Membridge's numbers on the scene."""
    with start_nats(scene.scratch / "nats") as server:
        return asyncio.run(_measure(scene, server))


async def _measure(scene: Scene, server: NatsServer) -> Ours:
    lanes = await _lanes(scene, server, sealed=False)
    sealed = {f"sealed_{name}": number for name, number in (await _lanes(scene, server, sealed=True)).items()}
    del sealed["sealed_full_push_bytes"]
    fresh, after = await _daemon_memory(scene, server)
    return Ours(
        **lanes, **sealed, idle_rss_bytes=fresh, idle_rss_after_pushes_bytes=after, **await _to_row(scene, server)
    )


async def _lanes(scene: Scene, server: NatsServer, *, sealed: bool) -> dict[str, float | int]:
    bucket = scene.s3.make_bucket("sealed" if sealed else "ours")
    random = new_random(7)
    async with AsyncExitStack() as stack:
        options = BusOptions(urls=(server.url,), name="bench")
        bus = await stack.enter_async_context(connect(options, deadline=_soon()))
        a = await stack.enter_async_context(_lane(scene, bus, bucket, "a", sealed=sealed))
        b = await stack.enter_async_context(_lane(scene, bus, bucket, "b", sealed=sealed))
        shutil.copyfile(scene.original, a.database)
        # claude-mem's worker keeps the file open in WAL mode.
        stack.enter_context(closing(worker_connection(a.database)))
        before = scene.s3.sizes(bucket)
        full_push = await _timed(lambda: _push(a))
        full_bytes = uploaded(before, scene.s3.sizes(bucket))
        cold_pull = await _timed(lambda: _pull(b))
        pushes: list[float] = []
        pulls: list[float] = []
        sizes: list[int] = []
        for _ in range(ROUNDS):
            add_observations(a.database, NEW, rng=random)
            before = scene.s3.sizes(bucket)
            pushes.append(await _timed(lambda: _push(a)))
            sizes.append(uploaded(before, scene.s3.sizes(bucket)))
            pulls.append(await _timed(lambda: _pull(b)))
    return {
        "push_seconds": statistics.median(pushes),
        "push_bytes": int(statistics.median(sizes)),
        "full_push_seconds": full_push,
        "full_push_bytes": full_bytes,
        "cold_pull_seconds": cold_pull,
        "delta_pull_seconds": statistics.median(pulls),
    }


@asynccontextmanager
async def _lane(scene: Scene, bus: Bus, bucket: str, name: str, *, sealed: bool) -> AsyncGenerator[Lane]:
    folder = scene.scratch / f"{bucket}-{name}"
    folder.mkdir()
    await ensure_streams(bus, replicas=1, deadline=_soon())
    heads = await open_bucket(bus, buckets.HEADS, replicas=1, deadline=_soon())
    s3 = scene.s3
    options = S3Options(endpoint=s3.endpoint, access_key=s3.access_key, secret_key=s3.secret_key, bucket=bucket)
    with (
        closing(Journal(folder / "journal.db")) as journal,
        closing(RowIndex(folder / "rows.db", folder / "claude-mem.db", lasting=True)) as index,
    ):
        async with open_s3(options) as opened:
            store = EncryptedStore(opened, KeySource(passphrase="of the bench")) if sealed else PlainStore(opened)
            # As the daemon does while the database is quiet.
            await store.describe(deadline=_soon())
            yield Lane(
                project=canonical_id(bucket),
                name=bucket,
                node=NodeId(name),
                database=folder / "claude-mem.db",
                folder=folder,
                store=store,
                heads=heads,
                journal=journal,
                index=index,
                announce=_unheard,
            )


async def _daemon_memory(scene: Scene, server: NatsServer) -> tuple[int, int]:
    machine = _machine(scene, server, "memory", scene.s3.make_bucket("memory"))
    random = new_random(8)
    shutil.copyfile(scene.original, machine.database)
    await machine.start()
    try:
        await until(lambda: committed(machine) >= 1)
        # The child of the first push has ended and the daemon is as it will be for months.
        await until(lambda: not _children(machine))
        fresh = _rss(machine)
        for number in range(2, 12):
            add_observations(machine.database, NEW, rng=random)
            await until(lambda number=number: committed(machine) >= number)
        await until(lambda: not _children(machine))
        return fresh, _rss(machine)
    finally:
        await machine.stop()


async def _to_row(scene: Scene, server: NatsServer) -> dict[str, float]:
    bucket = scene.s3.make_bucket("row")
    a, b = (_machine(scene, server, name, bucket) for name in ("row-a", "row-b"))
    random = new_random(9)
    shutil.copyfile(scene.original, a.database)
    times: list[float] = []
    try:
        await a.start()
        await until(lambda: committed(a) >= 1)
        await b.start()
        await until(lambda: b.database.exists() and count_of(b) == count_of(a))
        for _ in range(ROUNDS):
            add_observations(a.database, 1, rng=random)
            began, wanted = time.perf_counter(), count_of(a)
            await until(lambda wanted=wanted: count_of(b) >= wanted)
            times.append(time.perf_counter() - began)
    finally:
        await a.stop()
        await b.stop()
    return {"commit_to_row_seconds": statistics.median(times)}


def _machine(scene: Scene, server: NatsServer, name: str, bucket: str) -> NodeProcess:
    machine = NodeProcess(
        name,
        scene.scratch / name,
        server.url,
        f"bench-{bucket}",
        extra={
            "MINIO_ENDPOINT": scene.s3.endpoint,
            "MINIO_ACCESS_KEY": scene.s3.access_key,
            "MINIO_SECRET_KEY": scene.s3.secret_key,
            "MINIO_BUCKET": bucket,
            "MEMBRIDGE_QUIET_SECONDS": "0.1",
            "LEADERSHIP_LEASE_SECONDS": "30",
        },
    )
    machine.database.parent.mkdir(parents=True)
    return machine


def worker_connection(database: Path) -> apsw.Connection:
    """Open a database as claude-mem's worker has it open."""
    connection = apsw.Connection(str(database))
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    return connection


def committed(machine: NodeProcess) -> int:
    """Return how many snapshots a daemon has committed."""
    return machine.log.read_text(encoding="utf-8").count('"outcome":"committed"')


def count_of(machine: NodeProcess) -> int:
    """Return how many observations a machine's database has."""
    with closing(apsw.Connection(str(machine.database), flags=apsw.SQLITE_OPEN_READWRITE)) as database:
        database.set_busy_timeout(10_000)
        return Connection(database).number("SELECT count(*) FROM observations")


def _rss(machine: NodeProcess) -> int:
    status = Path(f"/proc/{pid_of(machine)}/status").read_text(encoding="ascii")
    return int(status.partition("VmRSS:")[2].split()[0]) << 10


def _children(machine: NodeProcess) -> str:
    pid = pid_of(machine)
    return Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").strip()


def pid_of(machine: NodeProcess) -> int:
    """Return the process id of a daemon that runs."""
    if machine.process is None:
        raise RuntimeError(f"{machine.name} does not run")
    return machine.process.pid


async def _push(lane: Lane) -> None:
    await push.push(lane, epoch=1, allow_shrink=False, progress=ProgressTracker(), deadline=_soon())


async def _pull(lane: Lane) -> None:
    await pull.pull(lane, replace=False, progress=ProgressTracker(), deadline=_soon())


async def _timed(act: Callable[[], object]) -> float:
    began = time.perf_counter()
    await act()  # type: ignore[misc]
    return time.perf_counter() - began


async def until(condition: Callable[[], object]) -> None:
    """Ask again and again until something is so."""
    # Another process is watched: it tells nobody when it is done.
    async with asyncio.timeout(LIMIT):
        while not await asyncio.to_thread(condition):  # noqa: ASYNC110 - as said above
            await asyncio.sleep(0.01)


async def _unheard(event: Event) -> None:
    del event


def _soon() -> Deadline:
    return Deadline.after(LIMIT)
