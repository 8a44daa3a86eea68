"""What the runtime needs beside the database: workers, KV entries, events, the object store.

The runtime knows this protocol only, so its rules are tested and measured without NATS.
"""

from typing import Protocol

from schemas.leases import Accepted, Lease, LeaseClaim, Order
from schemas.task_events import TaskEvent


class Port(Protocol):
    """Carries out what the runtime decided. A failure raises a MembridgeError unless a method says otherwise."""

    async def send(self, order: Order) -> Accepted:
        """Ask a worker to run a task."""
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

    async def stick(self, context_id: str, worker_id: str, session: str | None) -> None:
        """Remember which worker knows a context, and its session there."""
        ...

    async def announce(self, event: TaskEvent) -> None:
        """Publish an event; never raises."""
        ...

    async def store(self, key: str, content: bytes) -> None:
        """Put content that is too large for a row into the object store."""
        ...
