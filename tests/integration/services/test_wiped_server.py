"""A service goes on when its nats-server comes back without its memory."""

import asyncio
from pathlib import Path

import pytest

from membridge.bus.connection import Bus
from membridge.embedded.nats_server import NatsServer
from membridge.errors import MembridgeError
from schemas.tasks import Task, TaskStatus
from tests.fixtures.nats import Restartable
from tests.fixtures.pace import pause
from tests.fixtures.tasks import Place, place_of

#: Seconds until a coordinator must take tasks again.
PATIENCE = 60.0


@pytest.fixture
def nats_server(restartable: Restartable) -> NatsServer:
    """The server of this test is one whose memory can be taken."""
    return restartable.server


async def test_a_coordinator_runs_tasks_again_without_being_restarted(
    bus: Bus, restartable: Restartable, tmp_path: Path
) -> None:
    async with place_of(bus, restartable.url, f"sqlite:///{tmp_path}/tasks.db", tmp_path) as place:
        coordinator = await place.coordinator()
        await place.worker("a")
        before = await place.submit("before")
        await place.until(before.id, TaskStatus.COMPLETED)
        restartable.stop()
        restartable.wipe()
        restartable.start()
        after = await taken(place, "after")
        while (await place.task(after.id)).status is not TaskStatus.COMPLETED:
            await pause()
        # What was done before is in the database, not on the server.
        assert (await place.task(before.id)).status is TaskStatus.COMPLETED
        assert not coordinator.done()


async def taken(place: Place, prompt: str) -> Task:
    """Submit a task until a coordinator takes it."""
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                return await place.submit(prompt)
            except MembridgeError:
                await pause()
