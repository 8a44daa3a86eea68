"""A machine whose cable to NATS and its store is pulled: it goes on alone, and catches up when it is back."""

from collections.abc import AsyncGenerator

import pytest

from membridge.bus.connection import Bus
from membridge.claudemem.memory import memory_rows
from membridge.embedded.nats_server import NatsServer
from membridge.testing.node_process import NodeProcess
from schemas.leadership import Role
from tests.bench.s3 import S3
from tests.faults.namespace import Cable, cable
from tests.fixtures.machines import MakeMachine, command, until

#: Seconds from a plug that is back to a memory that is one again, and for a silent server to be given up.
LONG = 60.0


@pytest.fixture
async def wire() -> AsyncGenerator[Cable]:
    async with cable() as made:
        yield made


@pytest.fixture(params=["jetstream", "s3"])
def kept(request: pytest.FixtureRequest) -> S3 | None:
    return request.getfixturevalue("seaweed") if request.param == "s3" else None


async def machines(
    make_machine: MakeMachine, nats_server: NatsServer, wire: Cable, kept: S3 | None, *, primary: str
) -> tuple[NodeProcess, NodeProcess]:
    """Return a, and b at the end of the cable; both with the same memory, running and in step."""
    policy = {
        "MEMBRIDGE_LEADERSHIP_POLICY": "auto", "MEMBRIDGE_LEADERSHIP_GRACE_SECONDS": "0.5", "PRIMARY_NODE_ID": primary,
    }  # fmt: skip
    near, far = dict(policy), dict(policy)
    if kept is not None:
        bucket = kept.make_bucket(f"cable-{primary}")
        store = {
            "MEMBRIDGE_STORE": "s3", "MINIO_ACCESS_KEY": kept.access_key, "MINIO_SECRET_KEY": kept.secret_key,
            "MINIO_BUCKET": bucket,
        }  # fmt: skip
        near |= {**store, "MINIO_ENDPOINT": kept.endpoint}
        far |= {**store, "MINIO_ENDPOINT": f"http://{await wire.reach(port_of(kept.endpoint))}"}
    a, b = make_machine("a", memory=primary == "a", **near), make_machine("b", memory=primary == "b", **far)
    b.nats_url, b.through = f"nats://{await wire.reach(port_of(nats_server.url))}", wire.through
    return a, b


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


def rows_of(machine: NodeProcess) -> int:
    return sum(len(rows) for rows in memory_rows(machine.database).values())


async def in_step(bus: Bus, a: NodeProcess, b: NodeProcess) -> None:
    """Wait until both have one memory and nothing to tell each other."""
    for one in (a, b):
        await until(bus, one, lambda seen: not seen.project.lag and not seen.project.unsynced, seconds=LONG)
    await until(bus, a, lambda _: memory_rows(a.database) == memory_rows(b.database), seconds=LONG)


async def test_a_secondary_goes_on_alone(
    make_machine: MakeMachine, bus: Bus, nats_server: NatsServer, wire: Cable, kept: S3 | None
) -> None:
    a, b = await machines(make_machine, nats_server, wire, kept, primary="a")
    await a.start()
    await until(bus, a, lambda seen: seen.project.mirror_seq >= 1 and seen.project.role is Role.PRIMARY)
    await b.start()
    await in_step(bus, a, b)
    wire.pull()
    await a.write(3, "on a while b was alone")
    await b.write(3, "on b while it was alone")
    alone = rows_of(b)
    await until(bus, a, lambda seen: not seen.project.unsynced and seen.project.mirror_seq >= 2)
    wire.plug()
    await in_step(bus, a, b)
    assert rows_of(a) == rows_of(b) > alone


async def test_a_primary_that_is_cut_off_leads_no_more_and_loses_nothing(
    make_machine: MakeMachine, bus: Bus, nats_server: NatsServer, wire: Cable, kept: S3 | None
) -> None:
    a, b = await machines(make_machine, nats_server, wire, kept, primary="b")
    await b.start()
    await until(bus, b, lambda seen: seen.project.mirror_seq >= 1 and seen.project.role is Role.PRIMARY)
    await a.start()
    await in_step(bus, a, b)
    wire.pull()
    await b.write(3, "on b when it led and was alone")
    await until(bus, a, lambda seen: seen.project.role is Role.PRIMARY)
    await a.write(3, "on a that leads now")
    await until(bus, a, lambda seen: not seen.project.unsynced and seen.project.mirror_seq >= 2)
    assert "lease lost" in b.log.read_text()
    wire.plug()
    await in_step(bus, a, b)
    records = (await command(a, "history"))["records"]
    epochs = [record["epoch"] for record in records]
    assert epochs == sorted(epochs, reverse=True)
    # What led alone committed nothing: each commit after the first epoch's is the new primary's.
    assert {record["node"] for record in records if record["epoch"] > epochs[-1]} == {"a"}
