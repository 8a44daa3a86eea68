"""A subscription is in place exactly once, whatever the connection does while it is made or given up.

What the server knows is asked of the server: its monitoring lists every subscription of every connection.
"""

import asyncio
import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from membridge.aio.deadline import Deadline
from membridge.bus.connection import Bus, connect
from membridge.bus.options import BusOptions
from membridge.bus.subscription import Subscription
from membridge.errors import BusUnavailableError
from tests.fixtures.nats import QUICK, Restartable


def soon() -> Deadline:
    return Deadline.after(10.0)


@pytest.fixture
def server(tmp_path: Path, restartable: Restartable) -> Restartable:
    return restartable


@pytest.fixture
async def bus(server: Restartable) -> AsyncGenerator[Bus]:
    """A connection to a server that may go away."""
    async with connect(BusOptions(urls=(server.url,), name="test", pace=QUICK), deadline=soon()) as connected:
        yield connected


class Gate:
    """Holds a rebuilt connection at the point where it has a client and has not attached its subscriptions."""

    def __init__(self, bus: Bus) -> None:
        self.reached, self.open = asyncio.Event(), asyncio.Event()
        self._check = bus._check_account
        bus._check_account = self.check  # type: ignore[method-assign]

    async def check(self, *, deadline: Deadline) -> None:
        del deadline
        self.reached.set()
        await self.open.wait()
        await self._check(deadline=soon())


async def subscribed(server: Restartable, subject: str) -> int:
    """Return how many subscriptions to `subject` the server has."""
    url = f"{server.server.monitor_url}/connz?subs=1"
    connections: list[dict[str, Any]] = json.loads(await asyncio.to_thread(read, url))["connections"]
    return sum(connection.get("subscriptions_list", []).count(subject) for connection in connections)


def read(url: str) -> bytes:
    with urlopen(url) as answer:  # noqa: S310 - the monitoring of our own server
        return bytes(answer.read())


async def heard(bus: Bus, news: Subscription) -> list[bytes]:
    """Publish once and return what came, up to a message that was sent after it."""
    await bus.settle()
    await bus.publish(news.subject, b"once")
    await bus.publish(news.subject, b"end")
    found: list[bytes] = []
    async with asyncio.timeout(10.0):
        while b"end" not in found:
            found.append((await anext(news)).body)
    await bus.settle()
    while (message := news.next_nowait()) is not None:
        found.append(message.body)
    return found


async def test_one_made_while_the_connection_is_rebuilt_is_attached_once(server: Restartable, bus: Bus) -> None:
    gate, generation = Gate(bus), bus.generation
    await bus._nats.client.close()
    async with asyncio.timeout(10.0):
        await gate.reached.wait()
    async with bus.subscribe("news") as news:
        gate.open.set()
        async with asyncio.timeout(10.0):
            await bus.wait_generation(generation)
        assert await heard(bus, news) == [b"once", b"end"]
        assert await subscribed(server, "news") == 1
    await bus.settle()
    assert await subscribed(server, "news") == 0


async def test_one_given_up_while_the_connection_is_rebuilt_is_not_attached_afterwards(
    server: Restartable, bus: Bus
) -> None:
    gate, generation = Gate(bus), bus.generation
    async with bus.subscribe("news"):
        await bus._nats.client.close()
        async with asyncio.timeout(10.0):
            await gate.reached.wait()
    gate.open.set()
    async with asyncio.timeout(10.0):
        await bus.wait_generation(generation)
    await bus.settle()
    assert await subscribed(server, "news") == 0


async def test_one_made_or_given_up_while_the_server_is_away_is_as_it_should_be_afterwards(
    server: Restartable, bus: Bus
) -> None:
    generation = bus.generation
    server.stop()
    await until_noticed(bus)
    async with bus.subscribe("stays") as news:
        async with bus.subscribe("went"):
            pass
        server.start()
        async with asyncio.timeout(10.0):
            await bus.wait_generation(generation)
        assert await heard(bus, news) == [b"once", b"end"]
        assert await subscribed(server, "stays") == 1
        assert await subscribed(server, "went") == 0
    await bus.settle()
    assert await subscribed(server, "stays") == 0


async def until_noticed(bus: Bus) -> None:
    """Wait until the connection is known to be down."""
    async with asyncio.timeout(10.0):
        while True:
            try:
                await bus.publish("probe")
            except BusUnavailableError:
                return
            await bus.settle()
