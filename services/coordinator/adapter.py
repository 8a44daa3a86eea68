"""The port over NATS: requests to workers, leases and sticky workers in KV, events, large outputs as objects.

Nothing here decides. KV follows the database; where the two differ, the database is right.
"""

from dataclasses import dataclass, field

from membridge.aio.deadline import Deadline
from membridge.bus.connection import Bus
from membridge.bus.kv import Kv
from membridge.bus.publisher import tell
from membridge.bus.rpc import RpcClient
from membridge.errors import RevisionMovedError
from membridge.objectstore.protocol import ObjectStore
from membridge.system.logging import get_logger
from schemas import subjects
from schemas.buckets import Stickiness
from schemas.identity import token_of
from schemas.leases import Accepted, Lease, LeaseClaim, Order
from schemas.task_events import TaskEvent
from schemas.wire import encode

log = get_logger("membridge.coordinator")

#: Seconds that a worker may take to accept an order, and that a write to KV may take.
ASK, ENTRY = 5.0, 5.0
#: Seconds that storing a large output may take.
STORE = 60.0


@dataclass(frozen=True, slots=True)
class Adapter:
    """The port over NATS and the object store."""

    bus: Bus
    leases: Kv[Lease]
    sticky: Kv[Stickiness]
    objects: ObjectStore
    #: The revision of each lease's entry in KV, for the next compare-and-set.
    revisions: dict[str, int] = field(default_factory=dict[str, int])

    async def send(self, order: Order) -> Accepted:
        """Ask a worker to run a task."""
        return await RpcClient(self.bus).request(
            subjects.RUN, order, deadline=Deadline.after(ASK), worker=order.lease.worker_id
        )

    async def stop(self, claim: LeaseClaim) -> None:
        """Ask a worker to stop a task."""
        await RpcClient(self.bus).request(subjects.STOP, claim, deadline=Deadline.after(ASK), worker=claim.worker_id)

    async def hold(self, lease: Lease) -> None:
        """Write a lease to KV by compare-and-set, so that one deleted meanwhile stays deleted."""
        ttl, revision = float(lease.ttl_seconds), self.revisions.get(lease.id, 0)
        deadline = Deadline.after(ENTRY)
        try:
            written = await self.leases.update(lease.id, lease, revision=revision, ttl=ttl, deadline=deadline)
        except RevisionMovedError:
            # Written by an earlier tenure, or lost with the store.
            there = await self.leases.get(lease.id, deadline=deadline)
            if there is None:
                written = await self.leases.create(lease.id, lease, ttl=ttl, deadline=deadline)
            else:
                written = await self.leases.update(lease.id, lease, revision=there.revision, ttl=ttl, deadline=deadline)
        self.revisions[lease.id] = written

    async def let_go(self, lease: Lease) -> None:
        """Delete a lease from KV."""
        self.revisions.pop(lease.id, None)
        await self.leases.delete(lease.id, deadline=Deadline.after(ENTRY))

    async def stick(self, context_id: str, worker_id: str, session: str | None) -> None:
        """Remember which worker knows a context."""
        value = Stickiness(worker_id=worker_id, session=session, context_id=context_id)
        await self.sticky.put(token_of(context_id), value, deadline=Deadline.after(ENTRY))

    async def announce(self, event: TaskEvent) -> None:
        """Publish an event; a failure is logged."""
        subject = subjects.fill(subjects.TASK_EVENT, task=event.task_id, kind=event.kind.value, by=subjects.COORDINATOR)
        await tell(self.bus, subject, encode(event))

    async def store(self, key: str, content: bytes) -> None:
        """Put an output into the object store."""
        await self.objects.put(key, content, deadline=Deadline.after(STORE))
