"""Tasks under fire: coordinators, workers and the server are killed while tasks run, with processes.

The checker reads the audit: every task that was accepted ends exactly once, and no attempt is above the most.
"""

import asyncio
import os
import signal
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest

from membridge.aio.deadline import Deadline
from membridge.bus.connection import Bus
from membridge.bus.rpc import RpcClient
from membridge.embedded.nats_server import NatsServer
from membridge.errors import MembridgeError
from membridge.testing.node_process import NodeProcess
from schemas import subjects
from schemas.audit import AuditRequest, StatsReply
from schemas.node import Empty
from schemas.tasks import Task, TaskSpec, TasksRequest, TaskStatus
from tests.fixtures.machines import MakeMachine
from tests.fixtures.nats import Restartable
from tests.fixtures.pace import pause

TASKS = 60
CLAUDE = """\
import json, sys, time
if "--version" in sys.argv:
    print("2.0 (stand-in)")
    sys.exit()
prompt = sys.stdin.read()
time.sleep(0.05)
print(json.dumps({"result": prompt, "is_error": False, "session_id": "s", "usage": {}}))
"""


@pytest.fixture
def nats_server(restartable: Restartable) -> NatsServer:
    """The server of these tests is one that can be restarted."""
    return restartable.server


@pytest.fixture
def claude(tmp_path: Path) -> Path:
    """A program that says its prompt after a moment."""
    path = tmp_path / "claude"
    path.write_text(f"#!{sys.executable}\n{CLAUDE}")
    path.chmod(0o700)
    return path


async def ask(bus: Bus, operation: subjects.Operation, request: object) -> object:  # type: ignore[type-arg]
    """Ask until somebody answers."""
    async with asyncio.timeout(60.0):
        while True:
            try:
                return await RpcClient(bus).request(operation, request, deadline=Deadline.after(5.0))  # type: ignore[arg-type]
            except MembridgeError:
                if not bus.connected:
                    await bus.wait_generation(bus.generation)
                await pause()


async def submit(bus: Bus, number: int) -> str:
    spec = TaskSpec(
        context_id=f"c{number % 20}", agent_slug="a", prompt=str(number), idempotency_key=f"k{number}", max_attempts=5
    )
    task = await ask(bus, subjects.SUBMIT, spec)
    assert isinstance(task, Task)
    return task.id


async def leader_of(bus: Bus, coordinators: list[NodeProcess]) -> NodeProcess:
    stats = await ask(bus, subjects.STATS, Empty())
    assert isinstance(stats, StatsReply)
    pid = int(stats.leader.split("-")[-2])
    return next(one for one in coordinators if one.process is not None and one.process.pid == pid)


async def completed(bus: Bus, least: int) -> None:
    """Wait until so many tasks are completed."""
    async with asyncio.timeout(90.0):
        while True:
            stats = await ask(bus, subjects.STATS, Empty())
            assert isinstance(stats, StatsReply)
            if stats.tasks.get("completed", 0) >= least:
                return
            await pause()


async def test_every_task_ends_once_whatever_is_killed(
    make_machine: MakeMachine, bus: Bus, restartable: Restartable, claude: Path, database_url: str
) -> None:
    shared = {"DATABASE_URL": database_url, "MEMBRIDGE_WORKER": "1", "MEMBRIDGE_CLAUDE": str(claude)}
    shared |= {"MEMBRIDGE_WORKER_CONCURRENCY": "4", "MEMBRIDGE_AUTO_SYNC": "0"}
    coordinators = [make_machine(name, **shared) for name in ("c1", "c2")]
    workers = [make_machine(name, memory=True, **shared) for name in ("w1", "w2")]
    for one in coordinators:
        await one.start("coordinator")
    for one in workers:
        await one.start()
    ids = [await submit(bus, number) for number in range(TASKS)]
    for round_number, least in enumerate((5, 20)):
        await completed(bus, least)
        victim = await leader_of(bus, coordinators)
        await kill(victim)
        worker = workers[round_number % 2]
        await kill(worker)
        await victim.start("coordinator")
        await worker.start()
        if round_number == 0:
            restartable.kill()
            restartable.start()
    await completed(bus, TASKS)
    for task_id in ids:
        audit = await ask(bus, subjects.AUDIT, AuditRequest(entity_id=task_id))
        actions = Counter(record.action for record in audit.records)  # type: ignore[attr-defined]
        assert actions["completed"] == 1, (task_id, actions)
        assert actions["leased"] <= 5 + actions["handed_back"]
    reply = await ask(bus, subjects.TASKS, TasksRequest(limit=1000))
    tasks = reply.tasks  # type: ignore[attr-defined]
    assert sorted(task.id for task in tasks) == sorted(ids)
    assert {task.status for task in tasks} == {TaskStatus.COMPLETED}


async def kill(machine: NodeProcess) -> None:
    """SIGKILL a process and wait for its end."""
    assert machine.process is not None
    with suppress(ProcessLookupError):
        os.kill(machine.process.pid, signal.SIGKILL)
    await machine.process.wait()
