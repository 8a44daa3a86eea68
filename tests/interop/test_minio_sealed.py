"""Encryption on a real MinIO: the contract of sealed stores, and daemons whose store is sealed and rotated."""

import pytest

from membridge.objectstore.protocol import ObjectStore
from tests.contract.test_encrypted_store import *  # noqa: F403 - the same tests, on another server
from tests.integration.node.test_encryption import (
    test_a_store_that_was_unsealed_is_sealed_and_its_key_exchanged,  # noqa: F401
)


@pytest.fixture
def inner(lane_store: ObjectStore) -> ObjectStore:
    """The store as its operator has it."""
    return lane_store
