"""Three servers, replicas 3: one is killed under load, and nothing that was acknowledged is lost."""

import asyncio
import os
import secrets
import signal
from collections.abc import AsyncGenerator, Generator
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path

import pytest

from membridge.aio.deadline import Deadline
from membridge.bus.connection import Bus, connect
from membridge.bus.kv import Kv, open_bucket
from membridge.bus.options import BusOptions
from membridge.bus.streams import ensure_streams, last_per_subject
from membridge.claudemem.memory import memory_rows
from membridge.embedded.nats_server import NatsServer, start_nats
from membridge.errors import BusUnavailableError, MembridgeError, RevisionMovedError
from schemas import buckets, streams, subjects
from schemas.buckets import PushLeaseRecord
from tests.fixtures.machines import MakeMachine, observations_of, until
from tests.fixtures.nats import QUICK
from tests.fixtures.ports import free_ports

PROJECT = "0" * 16
WRITERS, EACH = 8, 60


@pytest.fixture
def cluster(tmp_path: Path) -> Generator[list[NatsServer]]:
    """Three servers that know each other."""
    ports = free_ports(3)
    routes = ", ".join(f'"nats-route://127.0.0.1:{port}"' for port in ports)
    with ExitStack() as stack:
        made: list[NatsServer] = []
        for number, port in enumerate(ports):
            config = tmp_path / f"server-{number}.conf"
            config.write_text(
                f"server_name: server-{number}\nhttp: 127.0.0.1:-1\n"
                "jetstream { max_file_store: 4GB, max_memory_store: 64MB, sync_interval: always }\n"
                f"cluster {{ name: three, listen: 127.0.0.1:{port}, routes: [{routes}] }}\n"
            )
            made.append(stack.enter_context(start_nats(tmp_path / f"server-{number}", config=config)))
        yield made


@pytest.fixture
def nats_server(cluster: list[NatsServer]) -> NatsServer:
    """The first of the three."""
    return cluster[0]


@pytest.fixture
async def bus(cluster: list[NatsServer]) -> AsyncGenerator[Bus]:
    """A connection that knows all three servers, with streams of three copies."""
    options = BusOptions(urls=tuple(server.url for server in cluster), name="test", replicas=3, pace=QUICK)
    async with AsyncExitStack() as stack:
        # Until the three have a leader JetStream answers nobody.
        async with asyncio.timeout(60.0):
            while True:
                try:
                    connected = await stack.enter_async_context(connect(options, deadline=Deadline.after(5.0)))
                except BusUnavailableError:
                    continue
                break
        await elected(connected)
        yield connected


async def elected(bus: Bus) -> None:
    """Wait until the cluster has leaders and every stream and bucket of ours."""
    async with asyncio.timeout(60.0):
        while True:
            try:
                await ensure_streams(bus, replicas=3, deadline=Deadline.after(10.0))
                for bucket in buckets.ALL:
                    await open_bucket(bus, bucket, replicas=3, deadline=Deadline.after(10.0))
            except MembridgeError:
                await asyncio.sleep(0)
            else:
                return


async def test_what_was_acknowledged_survives_a_server(bus: Bus, cluster: list[NatsServer]) -> None:
    acknowledged: set[str] = set()
    half = asyncio.Event()

    async def publish(writer: int) -> None:
        for number in range(EACH):
            job = f"{writer}-{number}"
            subject = subjects.fill(subjects.JOB, project=PROJECT, node="a", job=job)
            message_id = secrets.token_hex(16)
            async with asyncio.timeout(60.0):
                while True:
                    try:
                        await bus.stream_publish(subject, b"{}", message_id=message_id, deadline=Deadline.after(3.0))
                    except MembridgeError:
                        await asyncio.sleep(0)
                        continue
                    break
            acknowledged.add(job)
            if len(acknowledged) * 2 >= WRITERS * EACH:
                half.set()

    async def kill() -> None:
        await half.wait()
        os.kill(cluster[0].pid, signal.SIGKILL)

    async with asyncio.TaskGroup() as group:
        group.create_task(kill())
        for writer in range(WRITERS):
            group.create_task(publish(writer))
    assert len(acknowledged) == WRITERS * EACH
    filter_subject = subjects.JOB.format(project=PROJECT, node="*", job="*")
    kept = await last_per_subject(bus, streams.JOBS, filter_subject, limit=10_000, deadline=Deadline.after(10.0))
    assert len(kept) == len(acknowledged)


async def test_of_many_compare_and_sets_each_revision_has_one_winner_while_a_server_dies(
    bus: Bus, cluster: list[NatsServer]
) -> None:
    locks: Kv[PushLeaseRecord] = Kv(bus, buckets.PUSH_LEASES)
    won: dict[int, str] = {}

    async def contend(name: str) -> None:
        while len(won) < 20:
            try:
                entry = await locks.get("k", deadline=Deadline.after(3.0))
                value = PushLeaseRecord(owner=name, since="")
                revision = (
                    await locks.create("k", value, deadline=Deadline.after(3.0))
                    if entry is None
                    else await locks.update("k", value, revision=entry.revision, deadline=Deadline.after(3.0))
                )
            except RevisionMovedError:
                continue
            except MembridgeError:
                await asyncio.sleep(0)
                continue
            assert revision not in won, (revision, won[revision], name)
            won[revision] = name
            if len(won) == 10:
                os.kill(cluster[1].pid, signal.SIGKILL)

    async with asyncio.timeout(60.0), asyncio.TaskGroup() as group:
        for number in range(6):
            group.create_task(contend(f"w{number}"))
    assert len(won) >= 20


async def test_nodes_go_on_when_one_of_three_servers_dies(
    bus: Bus, cluster: list[NatsServer], make_machine: MakeMachine
) -> None:
    urls = ",".join(server.url for server in cluster)
    settings = {"MEMBRIDGE_NATS_URL": urls, "MEMBRIDGE_NATS_REPLICAS": "3"}
    a, b = make_machine("a", memory=True, **settings), make_machine("b", **settings)
    await a.start()
    await until(bus, a, lambda seen: seen.project.mirror_seq >= 1)
    await b.start()
    before = await observations_of(bus, b)
    os.kill(cluster[0].pid, signal.SIGKILL)
    await a.write(3, "on a with two servers")
    await b.write(3, "on b with two servers")
    for machine in (a, b):
        await until(
            bus,
            machine,
            lambda seen: (seen.project.rows.get("observations"), seen.project.unsynced) == (before + 6, 0),
            seconds=60.0,
        )
    assert memory_rows(a.database) == memory_rows(b.database)
