"""Daemons whose nats-server loses everything it stored: they make it again, and no row and no number is lost."""

from pathlib import Path
from shutil import copytree

import pytest

from membridge.bus.connection import Bus
from membridge.claudemem.memory import memory_rows
from membridge.embedded.nats_server import NatsServer
from membridge.objectstore.s3.client import S3Options
from membridge.testing.node_process import NodeProcess
from membridge.testing.writer import write
from schemas.leadership import Role
from schemas.node import StatusReply
from tests.fixtures.databases import titles
from tests.fixtures.machines import MakeMachine, command, until
from tests.fixtures.nats import Restartable


@pytest.fixture
def nats_server(restartable: Restartable) -> NatsServer:
    """The server of these tests is one that can lose its store."""
    return restartable.server


@pytest.fixture(params=["jetstream", "s3"])
def store(request: pytest.FixtureRequest) -> dict[str, str]:
    """Return the settings of each kind of snapshot store; only JetStream's is lost with the server's folder."""
    if request.param == "jetstream":
        return {}
    options = request.getfixturevalue("s3_options")
    assert isinstance(options, S3Options)
    return {
        "MINIO_ENDPOINT": options.endpoint,
        "MINIO_BUCKET": options.bucket,
        "MINIO_ACCESS_KEY": options.access_key,
        "MINIO_SECRET_KEY": options.secret_key,
    }


async def test_daemons_go_on_where_they_were_when_the_server_comes_back_empty(
    make_machine: MakeMachine, bus: Bus, restartable: Restartable, store: dict[str, str]
) -> None:
    a, b = make_machine("a", memory=True, **store), make_machine("b", **store)
    await two_at(bus, a, b, seq=1)
    write(str(a.database), 3, "before")
    await until(bus, a, lambda seen: seen.project.mirror_seq >= 2)
    before = await until(bus, b, lambda seen: seen.project.mirror_seq >= 2)
    restartable.stop()
    write(str(a.database), 3, "primary-alone")
    write(str(b.database), 3, "secondary-alone")
    restartable.wipe()
    restartable.start()
    await until(bus, a, lambda seen: seen.project.role is Role.PRIMARY and seen.project.epoch > before.project.epoch)
    await until(bus, a, lambda seen: seen.project.mirror_seq > before.project.mirror_seq)
    await until(bus, a, lambda seen: has(seen, 329))
    write(str(a.database), 1, "after")
    pushed = await command(a, "push", "--snapshot")
    assert pushed["outcome"] in {"committed", "unchanged"}
    assert pushed["epoch"] > before.project.epoch
    await until(bus, b, lambda seen: has(seen, 330) and seen.project.mirror_seq >= pushed["seq"])
    assert memory_rows(a.database) == memory_rows(b.database)
    assert {f"{who} learned fact 2" for who in ("before", "primary-alone", "secondary-alone")} <= titles(b.database)
    records = (await command(a, "history"))["records"]
    # The old term may still commit until its lease would have ended: nobody else can lead before.
    epochs = [record["epoch"] for record in records]
    assert epochs == sorted(epochs, reverse=True)
    assert epochs[0] > before.project.epoch
    assert [record["seq"] for record in records] == sorted({record["seq"] for record in records}, reverse=True)
    for machine in (a, b):
        checks = (await command(machine, "doctor"))["checks"]
        assert [check for check in checks if check["finding"] == "fail"] == []


async def test_rows_that_were_offered_to_a_queue_that_is_lost_are_offered_again_at_once(
    make_machine: MakeMachine, bus: Bus, restartable: Restartable, store: dict[str, str]
) -> None:
    a, b = make_machine("a", memory=True, **store), make_machine("b", **store)
    await two_at(bus, a, b, seq=1)
    await a.kill()
    write(str(b.database), 3, "offered")
    assert (await command(b, "push"))["outcome"] in {"proposed", "unchanged"}
    restartable.stop()
    restartable.wipe()
    restartable.start()
    await a.start()
    await until(bus, a, lambda seen: has(seen, 323))
    await until(bus, b, lambda seen: seen.project.unsynced == 0 and seen.project.lag == 0)
    assert memory_rows(a.database) == memory_rows(b.database)


async def test_after_an_older_backup_of_the_server_who_saw_more_leads_and_recovers_it(
    make_machine: MakeMachine, bus: Bus, restartable: Restartable, tmp_path: Path
) -> None:
    a, b = make_machine("a", memory=True), make_machine("b")
    await two_at(bus, a, b, seq=1)
    restartable.stop()
    copytree(tmp_path / "restartable", tmp_path / "backup")
    restartable.start()
    write(str(a.database), 3, "after the backup")
    await until(bus, a, lambda seen: seen.project.mirror_seq >= 2)
    await until(bus, b, lambda seen: has(seen, 323) and seen.project.lag == 0)
    # The lease ends with its holder: whoever leads next has to take it.
    await a.stop()
    restartable.stop()
    restartable.wipe()
    copytree(tmp_path / "backup", tmp_path / "restartable")
    restartable.start()
    await a.start()
    await until(bus, a, lambda seen: seen.project.role is Role.PRIMARY)
    code, output = await a.command("recover", "--from", "mirror", "--yes")
    # A push of the new primary's may have been first.
    assert code == 0 or "nothing is lost" in output, output
    await until(bus, a, lambda seen: has(seen, 323) and seen.project.mirror_seq >= 3)
    await until(bus, b, lambda seen: has(seen, 323) and seen.project.mirror_seq >= 3)
    assert memory_rows(a.database) == memory_rows(b.database)


async def two_at(bus: Bus, a: NodeProcess, b: NodeProcess, *, seq: int) -> None:
    """Start `a` as the primary, then `b`; wait until both have `seq`."""
    await a.start()
    await until(bus, a, lambda seen: seen.project.role is Role.PRIMARY and seen.project.mirror_seq >= seq)
    await b.start()
    await until(bus, b, lambda seen: seen.project.mirror_seq >= seq)


def has(seen: StatusReply, observations: int) -> bool:
    return seen.project.rows.get("observations") == observations
