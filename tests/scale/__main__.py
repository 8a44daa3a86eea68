"""`python -m tests.scale`: measure a server under more and more nodes and projects, and write docs/scale.md's table.

Each step starts a fresh nats-server as `membridge up` does, connects light nodes, waits until all are there, and
measures the server for half a minute from outside: CPU, memory, messages.
"""

import argparse
import asyncio
import hashlib
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import uvloop

from membridge.aio.deadline import Deadline
from membridge.bus.connection import Bus, connect
from membridge.bus.kv import Kv, open_bucket
from membridge.bus.options import BusOptions
from membridge.bus.streams import ensure_streams
from membridge.embedded.nats_server import NatsServer, start_nats
from membridge.system import logging
from schemas import buckets
from schemas.identity import NodeId, canonical_id
from schemas.leadership import Policy, ProjectSettings
from schemas.snapshot import Head, SnapshotKind, SnapshotRecord
from tests.scale.light import LightNode

#: Nodes and projects of each step.
STEPS = ((10, 2), (100, 20), (300, 60), (1000, 200))
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Measured:
    """What a server needed: CPU as a share of one core, resident MiB, messages a second in and out."""

    nodes: int
    projects: int
    cpu: float
    rss: float
    messages_in: float
    messages_out: float
    subscriptions: int
    commit_seen: float


async def measure(root: Path, nodes: int, projects: int, seconds: float) -> Measured:
    """Run one step."""
    with start_nats(root) as server:
        names = [f"project {number}" for number in range(projects)]
        async with asyncio.TaskGroup() as group, connect(_options(server, "operator"), deadline=_soon()) as operator:
            await _prepare(operator, names)
            running = [
                group.create_task(_node(server, number, names[number % projects], leads=number < projects))
                for number in range(nodes)
            ]
            await _all_there(operator, nodes)
            before, began, used = await _varz(server), time.monotonic(), _cpu(server.pid)
            await asyncio.sleep(seconds)
            after, took, now = await _varz(server), time.monotonic() - began, _cpu(server.pid)
            seen = await _commit_seen(operator, server, names[0])
            for task in running:
                task.cancel()
    return Measured(
        nodes,
        projects,
        (now - used) / took,
        after["mem"] / 2**20,
        (after["in_msgs"] - before["in_msgs"]) / took,
        (after["out_msgs"] - before["out_msgs"]) / took,
        int(after["subscriptions"]),
        seen,
    )


async def _prepare(bus: Bus, names: list[str]) -> None:
    await ensure_streams(bus, replicas=1, deadline=_soon())
    for bucket in buckets.ALL:
        await open_bucket(bus, bucket, replicas=1, deadline=_soon())
    for name in names:
        project = canonical_id(name)
        settings = ProjectSettings(project=project, name=name, policy=Policy.MANUAL)
        await Kv(bus, buckets.SETTINGS).put(project, settings, deadline=_soon())
        await Kv(bus, buckets.HEADS).put(project, _head(name, 1), deadline=_soon())


def _head(name: str, seq: int) -> Head:
    record = SnapshotRecord(
        project=canonical_id(name),
        seq=seq,
        epoch=1,
        parent_seq=seq - 1,
        kind=SnapshotKind.FULL,
        sha256=hashlib.sha256(f"{name} {seq}".encode()).hexdigest(),
        rows={"observations": seq},
        node=NodeId("n-0"),
        created_at="",
        nonce=f"{seq}",
    )
    return Head(record=record)


async def _node(server: NatsServer, number: int, name: str, *, leads: bool) -> None:
    # Ten a second less would be a machine room after a power cut; a hundred a second is what one loop manages.
    await asyncio.sleep(number / 100)
    async with connect(_options(server, f"n-{number}"), deadline=Deadline.after(60.0)) as bus:
        await LightNode(bus, NodeId(f"n-{number}"), canonical_id(name), leads).run()


async def _all_there(bus: Bus, nodes: int) -> None:
    present = Kv(bus, buckets.NODES)
    while len(await present.entries(deadline=_soon())) < nodes:  # noqa: ASYNC110 - nobody tells when the last is there
        await asyncio.sleep(0.5)


async def _commit_seen(bus: Bus, server: NatsServer, name: str) -> float:
    """Return the seconds from a moved head to its news at another connection."""
    heads = Kv(bus, buckets.HEADS)
    async with (
        connect(_options(server, "witness"), deadline=_soon()) as other,
        other.subscribe(heads.subject(canonical_id(name))) as news,
    ):
        began = time.monotonic()
        await heads.put(canonical_id(name), _head(name, 2), deadline=_soon())
        async with asyncio.timeout(10.0):
            await news.next()
        return time.monotonic() - began


async def _varz(server: NatsServer) -> dict[str, float]:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(server.monitor_url.rpartition(":")[2]))
    writer.write(b"GET /varz HTTP/1.0\r\n\r\n")
    body = (await reader.read()).partition(b"\r\n\r\n")[2]
    writer.close()
    return json.loads(body)


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def _options(server: NatsServer, name: str) -> BusOptions:
    return BusOptions(urls=(server.url,), name=name)


def _soon() -> Deadline:
    return Deadline.after(60.0)


def main() -> None:
    """Measure all steps and print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.scale")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--nodes", type=int, default=1000, help="leave out steps above this")
    asked = parser.parse_args()
    logging.setup(level="error")
    click.echo(
        "| nodes | projects | CPU of one core | server RSS | msgs in/s | msgs out/s | subs | commit seen after |"
    )
    click.echo("|---|---|---|---|---|---|---|---|")
    for nodes, projects in STEPS:
        if nodes > asked.nodes:
            continue
        with (
            TemporaryDirectory(prefix="membridge-scale-") as folder,
            asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
        ):
            found = runner.run(measure(Path(folder), nodes, projects, asked.seconds))
        click.echo(
            f"| {found.nodes} | {found.projects} | {found.cpu:.1%} | {found.rss:.0f} MiB | {found.messages_in:.0f} "
            f"| {found.messages_out:.0f} | {found.subscriptions} | {found.commit_seen * 1000:.1f} ms |"
        )


if __name__ == "__main__":
    main()
