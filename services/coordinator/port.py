"""What the runtime needs beside the database: workers, KV entries, events, the object store.

The runtime knows this protocol only, so its rules are tested and measured without NATS.
"""

from collections.abc import Sequence
from typing import Protocol

from schemas.leases import Accepted, Lease, LeaseClaim, Order
from schemas.task_events import TaskEvent


class Port(Protocol):
    """Carries out what the runtime decided. A failure raises a MembridgeError unless a method says otherwise."""

    async def send(self, worker_id: str, orders: Sequence[Order]) -> Sequence[Accepted]:
        """Ask a worker to run tasks; return its answers in their order."""
        ...

    async def stop(self, claim: LeaseClaim) -> None:
        """Ask a worker to stop a task; if it does not answer, its lease expires."""
        ...

    async def hold(self, lease: Lease) -> None:
        """Write a lease to KV, new or renewed, with its time to live."""
        ...

    async def let_go(self, lease: Lease) -> None:
        """Delete a lease from KV."""
        ...

    def announce(self, event: TaskEvent) -> None:
        """Publish an event, after those before it; never raises."""
        ...

    async def store(self, key: str, content: bytes) -> None:
        """Put content that is too large for a row into the object store."""
        ...
