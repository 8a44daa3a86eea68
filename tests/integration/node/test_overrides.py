"""The emergency commands of the old tool work while a daemon runs whose own settings do not allow them."""

import asyncio
import json
import sys
from asyncio.subprocess import PIPE, STDOUT
from datetime import UTC, datetime
from pathlib import Path

import pytest

from membridge.aio.deadline import Deadline
from membridge.bus.connection import Bus
from membridge.bus.kv import Kv, open_bucket
from membridge.testing.node_process import NodeProcess
from membridge.testing.writer import write
from schemas.buckets import HEADS, PUSH_LEASES, PushLeaseRecord
from schemas.identity import NodeId, canonical_id
from schemas.leadership import Role
from schemas.snapshot import SnapshotRecord
from tests.fixtures.databases import titles
from tests.fixtures.machines import PROJECT, MakeMachine, command, until

ID = canonical_id(PROJECT)
#: Nothing is synchronised by itself, and a push gives up on the lock of another one after a second.
MANUAL = {"MEMBRIDGE_AUTO_SYNC": "0", "MEMBRIDGE_OPERATION_TIMEOUT_SECONDS": "20", "STALE_LOCK_GRACE_SECONDS": "76"}

Pair = tuple[NodeProcess, NodeProcess]


@pytest.fixture
async def pair(make_machine: MakeMachine, bus: Bus) -> Pair:
    """A primary and a secondary in step, whose daemons sync nothing by themselves."""
    a, b = make_machine("a", memory=True, **MANUAL), make_machine("b", **MANUAL)
    await a.start()
    await until(bus, a, lambda seen: seen.project.role is Role.PRIMARY)
    await command(a, "push")
    await b.start()
    await until(bus, b, lambda seen: seen.primary == "a")
    await command(b, "pull")
    return a, b


async def overriding(machine: NodeProcess, arguments: tuple[str, ...], **override: str) -> tuple[int, str]:
    """Run a command with an override in its own environment; a name such as `cm-push` is that program."""
    program = (sys.executable, "-m", "membridge.cli.main", *arguments)
    if arguments[0].startswith("cm-"):
        entry = f"import sys; from membridge.cli import aliases; sys.exit(aliases.{arguments[0].replace('-', '_')}())"
        program = (sys.executable, "-c", entry, *arguments[1:])
    environment = {**machine.environment(), **override, "PYTHONPATH": str(Path.cwd())}
    process = await asyncio.create_subprocess_exec(*program, env=environment, stdout=PIPE, stderr=STDOUT)
    output, _ = await process.communicate()
    return process.returncode or 0, output.decode()


async def head(bus: Bus) -> SnapshotRecord:
    entry = await Kv(bus, HEADS).get(ID, deadline=Deadline.after(5.0))
    assert entry is not None
    return entry.value.record


async def test_a_secondary_commits_and_a_primary_is_replaced_when_the_command_says_so(pair: Pair, bus: Bus) -> None:
    a, b = pair
    write(str(b.database), 1, "of b")
    refused, output = await b.command("push", "--snapshot")
    assert (refused, "`ALLOW_SECONDARY_PUSH=1 membridge push --snapshot`" in output) == (3, True), output
    before = await head(bus)
    for number, arguments in enumerate((("push", "--snapshot"), ("push_sqlite",), ("cm-push", "--snapshot")), 1):
        write(str(b.database), 1, f"round {number}")
        code, output = await overriding(b, arguments, ALLOW_SECONDARY_PUSH="1")
        assert code == 0, output
        committed = await head(bus)
        assert (committed.seq, committed.node, committed.epoch) == (before.seq + number, "b", before.epoch)

    # The primary has rows that the head lacks: they go only when the command says so.
    write(str(a.database), 1, "only on a")
    mine = titles(a.database)
    refused, output = await a.command("pull", "--replace")
    assert refused == 2, output
    assert "`ALLOW_PRIMARY_PULL_OVERRIDE=1 membridge pull --replace`" in " ".join(output.split())
    assert titles(a.database) == mine
    code, output = await overriding(a, ("cm-pull", "--replace"), ALLOW_PRIMARY_PULL_OVERRIDE="1")
    assert code == 0, output
    assert titles(a.database) == titles(b.database) != mine

    lines = [json.loads(line) for machine in pair for line in machine.log.read_text().splitlines()]
    noted = [line for line in lines if line["event"] == "override with a request"]
    assert {line["override"] for line in noted} == {"ALLOW_SECONDARY_PUSH", "ALLOW_PRIMARY_PULL_OVERRIDE"}
    assert all(line["by"].endswith(("@a", "@b")) for line in noted)


async def test_force_push_takes_over_the_lock_that_another_push_holds(pair: Pair, bus: Bus) -> None:
    a, _ = pair
    locks = await open_bucket(bus, PUSH_LEASES, replicas=1, deadline=Deadline.after(5.0))
    held = PushLeaseRecord(owner=NodeId("other"), epoch=1 << 40, since=datetime.now(UTC).isoformat(), purpose="push")
    await locks.put(ID, held, deadline=Deadline.after(5.0))
    before, _ = await head(bus), write(str(a.database), 1, "urgent")
    code, output = await a.command("push")
    assert (code, "`FORCE_PUSH=1 membridge push`" in " ".join(output.split())) == (1, True), output
    assert (await head(bus)).seq == before.seq
    code, output = await overriding(a, ("cm-push",), FORCE_PUSH="1")
    assert code == 0, output
    assert (await head(bus)).seq == before.seq + 1
