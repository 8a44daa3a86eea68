"""Bits that flip in the files of the NATS server, under nodes that go on: it comes back damaged, and no row is lost."""

import asyncio
import json
import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from membridge.aio.deadline import Deadline
from membridge.bus.connection import Bus
from membridge.bus.health import jetstream_use
from membridge.bus.kv import open_bucket
from membridge.claudemem.memory import memory_rows
from membridge.embedded.nats_server import NatsServer
from membridge.errors import BusUnavailableError, MembridgeError
from membridge.objectstore.jetstream import open_jetstream
from membridge.objectstore.s3.client import S3Options
from membridge.testing.node_process import NodeProcess
from schemas import buckets, subjects
from schemas.identity import canonical_id
from schemas.node import StatusReply
from tests.fixtures.databases import titles
from tests.fixtures.machines import PROJECT, MakeMachine, command, status, until
from tests.fixtures.nats import Restartable
from tests.fixtures.pace import paced, pause

#: Bits that flip in each file.
FLIPS = 3
#: Which bits; what the files hold differs from run to run all the same.
SEED = 20261128
#: Seconds in which nodes get over what is damaged without a person.
BY_THEMSELVES = 15.0


@pytest.fixture
def nats_server(restartable: Restartable) -> NatsServer:
    """The server of these tests is one whose files can be damaged."""
    return restartable.server


def flip(files: list[Path], chance: random.Random) -> int:
    """Flip bits in each file; return in how many."""
    for path in files:
        body = bytearray(path.read_bytes())
        for _ in range(FLIPS):
            body[chance.randrange(len(body))] ^= 1 << chance.randrange(8)
        path.write_bytes(body)
    return len(files)


@pytest.mark.parametrize(("kind", "what"), [("s3", "*.blk"), ("jetstream", "*")])
async def test_in_the_streams_of_the_server(
    make_machine: MakeMachine,
    bus: Bus,
    restartable: Restartable,
    tmp_path: Path,
    what: str,
    kind: str,
    request: pytest.FixtureRequest,
) -> None:
    extra: dict[str, str] = {"PRIMARY_NODE_ID": "a"}
    if kind == "s3":
        options = request.getfixturevalue("s3_options")
        assert isinstance(options, S3Options)
        extra |= {"MINIO_ENDPOINT": options.endpoint, "MINIO_BUCKET": options.bucket}
        extra |= {"MINIO_ACCESS_KEY": options.access_key, "MINIO_SECRET_KEY": options.secret_key}
    a, b = make_machine("a", memory=True, **extra), make_machine("b", **extra)
    await a.start()
    await until(bus, a, lambda seen: seen.project.mirror_seq >= 1)
    await b.start()
    await until(bus, b, lambda seen: seen.project.mirror_seq >= 1)
    await a.write(3, "before, on a")
    await until(bus, b, lambda _: memory_rows(a.database) == memory_rows(b.database))
    restartable.stop()
    await a.write(3, "meanwhile on a")
    await b.write(3, "meanwhile on b")
    expected = {*memory_rows(a.database)["observations"], *memory_rows(b.database)["observations"]}
    files = [path for path in (tmp_path / "restartable").rglob(what) if path.is_file() and path.stat().st_size]
    assert flip(sorted(path for path in files if "jetstream" in path.parts), random.Random(SEED)) > 0
    with suppress(BusUnavailableError):
        # A server that hangs over its damaged files is not ready in time.
        restartable.start()

    def whole(_: StatusReply) -> bool:
        rows = memory_rows(a.database)
        return set(rows["observations"]) >= expected and rows == memory_rows(b.database)

    if not await takes_writes(bus):
        # It hangs, or refuses to write to what is damaged: the runbook is that of a server that was lost.
        restartable.stop()
        restartable.wipe()
        restartable.start()
    elif not await comes_about(bus, b, whole):
        # Where the server works, a full snapshot of what the nodes have gets over whatever it lost.
        await recovered(a)
    await until(bus, b, whole)
    await a.write(1, "after")
    await until(bus, b, lambda seen: whole(seen) and "after learned fact 0" in titles(b.database))
    if any(found["finding"] == "fail" for found in (await answered(a, "verify"))["findings"]):
        # What is damaged at rest is named, and a full snapshot of what the nodes have makes it whole.
        await recovered(a)
        await until(bus, b, lambda seen: whole(seen) and seen.project.lag == 0)


async def test_in_the_newest_snapshot_a_recovery_from_the_mirror_makes_it_whole(
    make_machine: MakeMachine, bus: Bus
) -> None:
    """Its record and its object are damaged at rest, and the head's entry in NATS is lost: no store has it whole."""
    extra = {"PRIMARY_NODE_ID": "a"}
    a, b = make_machine("a", memory=True, **extra), make_machine("b", **extra)
    await a.start()
    await until(bus, a, lambda seen: seen.project.mirror_seq >= 1)
    project = (await command(a, "status"))["project"]["project"]
    await a.stop()
    async with open_jetstream(bus) as store:
        keys = [info.key async for info in store.list(f"projects/{project}/", deadline=Deadline.after(10.0))]
        damaged = [key for key in keys if "/commits/" in key or "/snapshots/" in key]
        assert len(damaged) >= 2
        for key in damaged:
            body = bytearray(await store.get(key, deadline=Deadline.after(10.0)))
            body[: len(body) // 2] = bytes(byte ^ 1 for byte in body[: len(body) // 2])
            await store.put(key, bytes(body), if_absent=False, deadline=Deadline.after(10.0))
    heads_bucket = await open_bucket(bus, buckets.HEADS, replicas=1, deadline=Deadline.after(10.0))
    await heads_bucket.delete(project, deadline=Deadline.after(10.0))
    seq = await recovered(a)
    assert seq > 1
    await command(a, "verify", "--seq", str(seq))
    await a.start()
    await b.start()
    await until(bus, b, lambda seen: seen.project.mirror_seq >= seq)
    assert memory_rows(a.database) == memory_rows(b.database)


async def answered(machine: NodeProcess, *arguments: str) -> dict[str, Any]:
    """Run a command until the server answers it, which reads its damaged files meanwhile; return what it says."""
    async with asyncio.timeout(60.0):
        while True:
            _, output = await machine.command(*arguments, "--json")
            answer: dict[str, Any] = json.loads(output)
            if answer.get("code") not in {"unavailable", "deadline_exceeded"}:
                return answer
            await pause()


async def recovered(machine: NodeProcess) -> int:
    """Recover from the machine's mirror; return the seq, 0 where only older states are damaged and nothing is to do."""
    reply = await answered(machine, "recover", "--from", "mirror", "--yes")
    assert reply.get("committed") or "nothing is lost" in reply.get("message", ""), reply
    return int(reply.get("seq", 0))


async def takes_writes(bus: Bus) -> bool:
    """Return whether the server's JetStream answers, and stores in the streams of ours that it has."""
    written = (*(f"$KV.{bucket.name}.probe" for bucket in buckets.ALL), "$O.membridge.C.probe")
    project = canonical_id(PROJECT)
    job = subjects.fill(subjects.JOB, project=project, node="a", job="probe")
    event = subjects.fill(subjects.EVENT, project=project, kind="probe", node="a")
    try:
        await jetstream_use(bus, deadline=Deadline.after(3.0))
        for subject in written:
            await bus.store(subject, b"", headers={"KV-Operation": "DEL"}, deadline=Deadline.after(3.0))
        for subject in (job, event):
            await bus.store(subject, b"", headers={}, deadline=Deadline.after(3.0))
    except MembridgeError:
        return False
    return True


async def comes_about(bus: Bus, machine: NodeProcess, wanted: Callable[[StatusReply], bool]) -> bool:
    """Return whether the nodes get there by themselves."""
    try:
        async with asyncio.timeout(BY_THEMSELVES), paced(bus) as turn:
            while (seen := await status(bus, machine)) is None or not wanted(seen):
                await turn()
    except TimeoutError:
        return False
    return True
