"""`membridge up` as a process tree: one of a kind, a server that dies under it, and nothing left after Ctrl-C."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from membridge.aio.deadline import Deadline
from membridge.bus.connection import Bus, connect
from membridge.bus.options import BusOptions
from membridge.settings import loopback_key
from membridge.testing.node_process import NodeProcess
from membridge.testing.writer import write
from schemas.leadership import Role
from tests.fixtures.machines import MakeMachine, command, until
from tests.fixtures.nats import QUICK
from tests.fixtures.pace import pause
from tests.fixtures.ports import free_port

#: Seconds within which Ctrl-C ends everything: the node's drain and the server's.
STOP = 20.0


@pytest.fixture
def up(make_machine: MakeMachine) -> NodeProcess:
    """A machine with a memory, and a port of its own for the server that `up` starts."""
    return make_machine("a", memory=True, MEMBRIDGE_NATS_URL=f"nats://127.0.0.1:{free_port()}")


async def test_up_runs_everything_and_a_second_one_is_told_where(up: NodeProcess) -> None:
    await up.start("up")
    await until_it_answers(up)
    code, output = await up.command("up")
    assert code == 1
    assert f"pid {pid_of(up)}" in output
    children = children_of(up)
    assert children
    await interrupt(up)
    assert not running(children)
    assert up.database.exists()


async def test_a_killed_server_is_started_again_and_the_node_goes_on(up: NodeProcess) -> None:
    await up.start("up")
    await until_it_answers(up)
    async with connected(up) as bus:
        before = await until(bus, up, lambda seen: seen.project.mirror_seq >= 1)
        servers = [await kill_server(up)]
        await until_it_answers(up)
        servers.append(await kill_server(up))
        write(str(up.database), 2, "while-away")
        await until(bus, up, lambda seen: seen.project.role is Role.PRIMARY)
        write(str(up.database), 2, "after")
        pushed = await command(up, "push", "--snapshot")
        assert pushed["outcome"] in {"committed", "unchanged"}
        assert pushed["seq"] > before.project.mirror_seq
        await until(bus, up, lambda seen: seen.project.unsynced == 0)
    records = (await command(up, "history"))["records"]
    assert records[0]["rows"]["observations"] == 324
    assert [record["seq"] for record in records] == list(range(records[0]["seq"], 0, -1))
    pauses = [line["in_seconds"] for line in said(up) if line["event"] == "nats-server ended, starting it again"]
    # Each pause is jittered between half and all of 0.4 and 0.8 seconds.
    assert len(pauses) == 2
    assert 0.2 <= pauses[0] <= 0.4 <= pauses[1] <= 0.8
    servers += children_of(up)
    assert len(set(servers)) == 3
    await interrupt(up)
    assert not running(servers)


async def test_ctrl_c_while_the_server_is_away_stops_all_too(up: NodeProcess) -> None:
    await up.start("up")
    await until_it_answers(up)
    server = await kill_server(up)
    await interrupt(up)
    assert not running([server])
    address = up.environment()["MEMBRIDGE_NATS_URL"].removeprefix("nats://").split(":")
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(address[0], int(address[1]))


@asynccontextmanager
async def connected(up: NodeProcess) -> AsyncGenerator[Bus]:
    """Connect to the server of `up`, for as long as it has one."""
    key = loopback_key(up.home / ".local" / "state" / "membridge")
    options = BusOptions(urls=(up.environment()["MEMBRIDGE_NATS_URL"],), name="test", nkey_seed=key, pace=QUICK)
    async with connect(options, deadline=Deadline.after(5.0)) as bus:
        yield bus


async def until_it_answers(up: NodeProcess) -> None:
    """Wait until the node answers a command."""
    async with asyncio.timeout(30.0):
        while (await up.command("status"))[0]:
            assert up.process is not None
            assert up.process.returncode is None, up.log.read_text(encoding="utf-8")
            await pause()


async def kill_server(up: NodeProcess) -> int:
    """Kill the server as the kernel does when memory is short; return the process that it was, gone by now."""
    (server,) = (pid for pid in children_of(up) if name_of(pid) == "nats-server")
    descriptor = os.pidfd_open(server)
    try:
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        ended = asyncio.Event()
        asyncio.get_running_loop().add_reader(descriptor, ended.set)
        async with asyncio.timeout(5.0):
            await ended.wait()
        asyncio.get_running_loop().remove_reader(descriptor)
    finally:
        os.close(descriptor)
    return server


async def interrupt(up: NodeProcess) -> None:
    """Press Ctrl-C and wait for the end, which is a success."""
    assert up.process is not None
    up.process.send_signal(signal.SIGINT)
    async with asyncio.timeout(STOP):
        assert await up.process.wait() == 0, up.log.read_text(encoding="utf-8")[-3000:]


def pid_of(up: NodeProcess) -> int:
    assert up.process is not None
    return up.process.pid


def children_of(up: NodeProcess) -> list[int]:
    pid = pid_of(up)
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]


def name_of(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text(encoding="ascii").strip()


def running(pids: list[int]) -> list[int]:
    return [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def said(up: NodeProcess) -> list[dict[str, object]]:
    """Return what it logged."""
    lines = up.log.read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines if line.startswith("{")]
