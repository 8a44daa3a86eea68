"""The stores under contract: both kinds, each as it is and sealed."""

from collections.abc import AsyncGenerator

import pytest

from membridge.bus.connection import Bus
from membridge.objectstore.encryption.keys import KeySource
from membridge.objectstore.encryption.store import EncryptedStore
from membridge.objectstore.protocol import ObjectStore
from tests.fixtures.lanes import opened_store


@pytest.fixture(params=["jetstream", "s3", "jetstream sealed", "s3 sealed"])
async def lane_store(request: pytest.FixtureRequest, bus: Bus) -> AsyncGenerator[ObjectStore]:
    """An empty object store, of each kind."""
    kind, _, sealed = str(request.param).partition(" ")
    options = request.getfixturevalue("s3_options") if kind == "s3" else None
    async with opened_store(kind, bus, options) as store:
        yield EncryptedStore(store, KeySource(passphrase="of the contract")) if sealed else store
