"""A gateway with a coordinator, for tests that only ask."""

from collections.abc import AsyncGenerator

import pytest

from membridge.embedded.nats_server import NatsServer
from tests.fixtures.gateway import Gateway, gateway_of
from tests.fixtures.tasks import OpenPlace


@pytest.fixture
async def refusing(opened: OpenPlace, nats_server: NatsServer) -> AsyncGenerator[Gateway]:
    async with opened() as place, gateway_of(place.bus, nats_server.url, place.settings.node.state_dir) as gateway:
        await place.coordinator()
        yield gateway
