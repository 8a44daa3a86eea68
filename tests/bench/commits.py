"""`python -m tests.bench.commits`: what a year of commits costs: gc, verify, history, pulls from afar.

A chain of commits is written straight into a store; then each operation runs once against it, in a process of its own
for its peak of memory, through a store that counts what was asked of it. Fails when a pull reads more than it may.
"""

import argparse
import asyncio
import resource
import sys
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import click

from membridge.aio.deadline import Deadline
from membridge.bus.connection import Bus, connect
from membridge.bus.kv import open_bucket
from membridge.bus.options import BusOptions
from membridge.commits import fetch, gc, heads, history, verify
from membridge.commits.progress import ProgressTracker
from membridge.commits.replica import Replica
from membridge.embedded.nats_server import start_nats
from membridge.objectstore.jetstream import open_jetstream
from membridge.objectstore.protocol import ObjectInfo, ObjectStore, Progress, StoreDescription
from membridge.objectstore.s3.client import S3Options, open_s3
from schemas import buckets
from schemas.commits import HistoryRequest, VerifyRequest
from schemas.identity import NodeId, canonical_id
from schemas.snapshot import SnapshotRecord
from tests.bench.database import SAMPLE
from tests.bench.s3 import start_s3
from tests.fixtures.long_histories import write_history

LONG = 3_600.0
#: Reads that a pull may take: a record and an object for each step.
MOST_READS = {"cold pull": 2 * 36, "pull, 300 commits behind": 2 * 30, "cold pull after gc": 2 * 36}


@dataclass(slots=True)
class CountingStore:
    """Passes every call on and counts it; `listed` are the objects that listings brought."""

    inner: ObjectStore
    calls: Counter[str] = field(default_factory=Counter[str])

    async def put(self, key: str, body: bytes, *, if_absent: bool = True, deadline: Deadline) -> None:
        self.calls["put"] += 1
        await self.inner.put(key, body, if_absent=if_absent, deadline=deadline)

    async def get(self, key: str, *, start: int = 0, length: int | None = None, deadline: Deadline) -> bytes:
        self.calls["get"] += 1
        return await self.inner.get(key, start=start, length=length, deadline=deadline)

    async def upload(
        self, key: str, source: Path, *, if_absent: bool = True, deadline: Deadline, progress: Progress | None = None
    ) -> None:
        self.calls["put"] += 1
        await self.inner.upload(key, source, if_absent=if_absent, deadline=deadline, progress=progress)

    async def download(
        self, key: str, target: Path, *, start: int = 0, deadline: Deadline, progress: Progress | None = None
    ) -> None:
        self.calls["get"] += 1
        await self.inner.download(key, target, start=start, deadline=deadline, progress=progress)

    async def list(self, prefix: str, *, after: str = "", deadline: Deadline) -> AsyncGenerator[ObjectInfo]:
        self.calls["list"] += 1
        async for info in self.inner.list(prefix, after=after, deadline=deadline):
            self.calls["listed"] += 1
            yield info

    async def delete(self, key: str, *, deadline: Deadline) -> None:
        self.calls["delete"] += 1
        await self.inner.delete(key, deadline=deadline)

    async def head(self, key: str, *, deadline: Deadline) -> ObjectInfo | None:
        self.calls["head"] += 1
        return await self.inner.head(key, deadline=deadline)

    async def share(self, key: str, *, seconds: int, deadline: Deadline) -> str | None:
        return await self.inner.share(key, seconds=seconds, deadline=deadline)

    async def describe(self, *, deadline: Deadline) -> StoreDescription:
        return await self.inner.describe(deadline=deadline)

    async def warm(self) -> None:
        await self.inner.warm()


async def _history(replica: Replica) -> str:
    reply = await history.read(replica, HistoryRequest(limit=20), deadline=Deadline.after(LONG))
    return f"{len(reply.records)} records"


async def _history_at(replica: Replica) -> str:
    known = await heads.read(replica, deadline=Deadline.after(LONG))
    assert known is not None
    at = known.record.created_at
    record = await history.resolve(replica, f"@{at[:8]}01T00:00:00+00:00", deadline=Deadline.after(LONG))
    return f"snapshot {record.seq if record else 0}"


async def _gc(replica: Replica) -> str:
    reply = await gc.collect(replica, dry_run=False, progress=ProgressTracker(), deadline=Deadline.after(LONG))
    return f"{reply.snapshots} deleted, {reply.kept} kept"


async def _verify(replica: Replica) -> str:
    reply = await verify.verify(replica, VerifyRequest(), progress=ProgressTracker(), deadline=Deadline.after(LONG))
    return f"{reply.restored} restored, {len(reply.findings)} findings"


async def _pull(replica: Replica) -> str:
    known = await heads.read(replica, deadline=Deadline.after(LONG))
    assert known is not None
    return await _fetched(replica, known.record)


async def _fetched(replica: Replica, head: SnapshotRecord) -> str:
    deadline = Deadline.after(LONG)
    fetched = await fetch.fetch(replica, head, progress=ProgressTracker(), deadline=deadline)
    fetch.take(replica, fetched, deadline=deadline)
    return f"{fetched.downloaded_bytes:,} bytes"


async def _behind(replica: Replica, commits: int) -> str:
    known = await heads.read(replica, deadline=Deadline.after(LONG))
    assert known is not None
    old = await heads.fetch_record(replica, max(1, known.record.seq - commits), deadline=Deadline.after(LONG))
    inner = replica.store
    assert isinstance(inner, CountingStore)
    await _fetched(replica, old)
    inner.calls.clear()
    return await _fetched(replica, known.record)


STEPS: dict[str, Callable[[Replica], Awaitable[str]]] = {
    "history, newest 20": _history,
    "history at an instant": _history_at,
    "cold pull": _pull,
    "pull, 300 commits behind": lambda replica: _behind(replica, 300),
    "verify": _verify,
    "gc, the first": _gc,
    "gc, nothing to delete": _gc,
    "cold pull after gc": _pull,
    "verify after gc": _verify,
}


@asynccontextmanager
async def _opened(kind: str, url: str, s3: S3Options | None, folder: Path) -> AsyncGenerator[Replica]:
    async with connect(BusOptions(urls=(url,), name="bench"), deadline=Deadline.after(10.0)) as bus:
        heads_bucket = await open_bucket(bus, buckets.HEADS, replicas=1, deadline=Deadline.after(10.0))
        async with _store(kind, bus, s3) as store:
            yield Replica(
                project=canonical_id("bench"), name="bench", node=NodeId("bench"), folder=folder,
                store=CountingStore(store), heads=heads_bucket,
            )  # fmt: skip


@asynccontextmanager
async def _store(kind: str, bus: Bus, s3: S3Options | None) -> AsyncGenerator[ObjectStore]:
    if kind == "jetstream":
        async with open_jetstream(bus) as store:
            yield store
        return
    assert s3 is not None
    async with open_s3(s3) as store:
        yield store


async def _step(name: str, replica: Replica) -> None:
    assert isinstance(replica.store, CountingStore)
    began, cpu = time.perf_counter(), time.process_time()
    said = await STEPS[name](replica)
    seconds, busy = time.perf_counter() - began, time.process_time() - cpu
    calls = ", ".join(f"{number:,} {call}" for call, number in sorted(replica.store.calls.items()))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    if replica.store.calls["get"] > MOST_READS.get(name, sys.maxsize):
        raise SystemExit(f"{name}: {replica.store.calls['get']} reads, more than {MOST_READS[name]}")
    click.echo(f"| {name} | {seconds:.2f} s | {busy:.2f} s | {peak} MiB | {calls} | {said} |")


async def _child(arguments: argparse.Namespace, folder: Path) -> None:
    s3 = S3Options(**_pairs(arguments.s3)) if arguments.s3 else None
    async with _opened(arguments.store, arguments.url, s3, folder) as replica:
        if arguments.step == "write":
            began = time.perf_counter()
            await write_history(replica, SAMPLE, arguments.commits, deadline=Deadline.after(LONG))
            assert isinstance(replica.store, CountingStore)
            seconds, calls = time.perf_counter() - began, replica.store.calls
            click.echo(f"{arguments.commits:,} commits written in {seconds:.0f} s: {dict(calls)}", err=True)
            return
        await _step(arguments.step, replica)


def _pairs(text: str) -> dict[str, str]:
    return dict(pair.split("=", 1) for pair in text.split(","))


async def _run(arguments: argparse.Namespace, root: Path, url: str, s3: str) -> None:
    click.echo("| | wall | CPU | peak RSS | requests | result |\n|---|---|---|---|---|---|")
    for number, name in enumerate(["write", *STEPS]):
        command = [sys.executable, "-m", "tests.bench.commits", "--step", name, "--url", url, "--store"]
        command += [arguments.store, "--commits", str(arguments.commits), "--folder", str(root / f"{number}")]
        process = await asyncio.create_subprocess_exec(*command, *(["--s3", s3] if s3 else []))
        if await process.wait():
            raise SystemExit(f"{name} failed")


def main() -> None:
    """Run the benchmark, or one step of it as a child."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.commits", description=__doc__)
    parser.add_argument("--commits", type=int, default=2_000)
    parser.add_argument("--store", choices=("jetstream", "s3"), default="jetstream")
    for hidden in ("--step", "--url", "--s3", "--folder"):
        parser.add_argument(hidden, default="", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        folder = Path(arguments.folder)
        folder.mkdir(parents=True, exist_ok=True)
        asyncio.run(_child(arguments, folder))
        return
    with TemporaryDirectory(prefix="membridge-commits-") as folder, start_nats(Path(folder) / "nats") as server:
        root = Path(folder)
        if arguments.store == "jetstream":
            asyncio.run(_run(arguments, root, server.url, ""))
            return
        with start_s3(root / "s3") as s3:
            text = ",".join(f"{name}={getattr(s3, name)}" for name in ("endpoint", "access_key", "secret_key"))
            text += f",bucket={s3.make_bucket('commits')}"
            asyncio.run(_run(arguments, root, server.url, text))


if __name__ == "__main__":
    main()
