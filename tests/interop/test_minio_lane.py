"""Snapshots on a real MinIO: push, pull, merge, and garbage collection."""

from tests.integration.commits.test_gc import *  # noqa: F403 - the same tests, on another server
from tests.integration.snapshot.test_push_and_pull import *  # noqa: F403
