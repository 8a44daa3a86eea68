"""The contract of object stores, on a real MinIO: ranges, conditional puts, multipart uploads, listings, races."""

from tests.contract.test_object_stores import *  # noqa: F403 - the same tests, on another server
from tests.contract.test_store_contract import *  # noqa: F403
