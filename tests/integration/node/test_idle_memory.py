"""What an idle daemon takes, as it starts and after pushes: what those needed is given back."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from membridge.testing.node_process import NodeProcess
from tests.bench.database import add_observations, grow, new_random
from tests.fixtures.heard import Heard
from tests.fixtures.machines import SOON, MakeMachine
from tests.fixtures.pace import written_to
from tests.fixtures.ports import free_port
from tests.fixtures.resident import resident

if TYPE_CHECKING:
    from membridge.objectstore.s3.client import S3Options

#: Bytes of resident memory of an idle daemon: as many as the goal of `just bench`.
MOST = 40 << 20
#: The same of `up`, with the server that it starts; and how many more with its gateway.
MOST_OF_UP, MOST_OF_GATEWAY = (40 + 35) << 20, 15 << 20
#: MiB of the database, pushes after the first one, and new rows in each of them.
SIZE, PUSHES, ROWS = 30, 10, 10


async def pushed(machine: NodeProcess, times: int) -> None:
    """Wait until a daemon has committed so often."""
    async with asyncio.timeout(SOON):
        while machine.log.read_text(encoding="utf-8").count('"outcome":"committed"') < times:
            await written_to(machine.log)


async def memory_of(machine: NodeProcess) -> int:
    """Return what a daemon takes once it has nothing more to log."""
    await written_to(machine.log)
    assert machine.process is not None
    return resident(machine.process.pid)


@pytest.fixture(params=["jetstream", "s3"])
def stored(request: pytest.FixtureRequest) -> Mapping[str, str]:
    """The settings of each object store."""
    if request.param == "jetstream":
        return {"MEMBRIDGE_STORE": "jetstream"}
    options: S3Options = request.getfixturevalue("s3_options")
    return {
        "MINIO_ENDPOINT": options.endpoint,
        "MINIO_ACCESS_KEY": options.access_key,
        "MINIO_SECRET_KEY": options.secret_key,
        "MINIO_BUCKET": options.bucket,
    }


async def test_an_idle_daemon_takes_at_most_40_mib_also_after_ten_pushes(
    make_machine: MakeMachine, stored: Mapping[str, str]
) -> None:
    machine, random = make_machine("a", **stored), new_random(8)
    grow(machine.database, SIZE)
    await machine.start()

    await pushed(machine, 1)
    fresh = await memory_of(machine)
    for number in range(PUSHES):
        add_observations(machine.database, ROWS, rng=random)
        await pushed(machine, 2 + number)
    after = await memory_of(machine)

    assert max(fresh, after) <= MOST, f"{fresh / 2**20:.1f} MiB at first, {after / 2**20:.1f} MiB after ten pushes"


@pytest.mark.parametrize("gateway", ["0", "1"])
async def test_up_and_its_server_take_at_most_75_mib_also_after_ten_pushes_and_15_more_with_its_gateway(
    make_machine: MakeMachine, heard: Heard, gateway: str
) -> None:
    machine = make_machine(
        "a",
        MEMBRIDGE_NATS_URL=f"nats://127.0.0.1:{free_port()}",
        MEMBRIDGE_STORE="jetstream",
        MEMBRIDGE_GATEWAY=gateway,
        MEMBRIDGE_GATEWAY_LISTEN=f"127.0.0.1:{free_port()}",
        NOTIFY_SOCKET=heard.address,
    )
    random = new_random(8)
    grow(machine.database, SIZE)
    await heard.start(machine)

    await pushed(machine, 1)
    fresh = await memory_of_all(machine)
    for number in range(PUSHES):
        add_observations(machine.database, ROWS, rng=random)
        await pushed(machine, 2 + number)
    after = await memory_of_all(machine)

    found = ", ".join(f"{name} {size / 2**20:.1f} MiB" for name, size in {**fresh, **after}.items())
    most = MOST_OF_UP + (MOST_OF_GATEWAY if gateway == "1" else 0)
    assert max(sum(fresh.values()), sum(after.values())) <= most, found


async def memory_of_all(machine: NodeProcess) -> dict[str, int]:
    """Return what `up` and each process that it started take, by pid, once it has nothing more to log."""
    await written_to(machine.log)
    assert machine.process is not None
    return memory_of_tree(machine.process.pid)


def memory_of_tree(pid: int) -> dict[str, int]:
    """Return what a process and all that it started take, by name and pid."""
    pids = [pid]
    for one in pids:
        for task in Path(f"/proc/{one}/task").iterdir():
            pids += map(int, (task / "children").read_text(encoding="ascii").split())
    return {f"{Path(f'/proc/{one}/comm').read_text(encoding='ascii').strip()} {one}": resident(one) for one in pids}
