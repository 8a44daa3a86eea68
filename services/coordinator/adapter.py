"""The port over NATS: requests to workers, leases in KV, events, large outputs as objects.

Nothing here decides. KV follows the database; where the two differ, the database is right.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from membridge.aio.deadline import Deadline
from membridge.bus.connection import Bus
from membridge.bus.kv import Kv
from membridge.bus.publisher import Publisher
from membridge.bus.rpc import RpcClient
from membridge.errors import BusUnavailableError, RevisionMovedError
from membridge.objectstore.protocol import ObjectStore
from membridge.system.logging import get_logger
from schemas import subjects
from schemas.leases import Accepted, Lease, LeaseClaim, Order, Orders
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
    publisher: Publisher
    objects: ObjectStore
    #: The revision of each lease's entry in KV, for the next compare-and-set.
    revisions: dict[str, int] = field(default_factory=dict[str, int])

    async def send(self, worker_id: str, orders: Sequence[Order]) -> Sequence[Accepted]:
        """Ask a worker to run tasks."""
        reply = await RpcClient(self.bus).request(
            subjects.RUN, Orders(orders=[*orders]), deadline=Deadline.after(ASK), worker=worker_id
        )
        if len(reply.answers) != len(orders):
            raise BusUnavailableError(
                f"worker {worker_id} answered {len(reply.answers)} of {len(orders)} orders",
                remedy="upgrade membridge on that machine",
            )
        return reply.answers

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

    def announce(self, event: TaskEvent) -> None:
        """Publish an event; a failure is logged."""
        # The ids are the coordinator's own: `fill` need not check them.
        subject = subjects.TASK_EVENT.format(task=event.task_id, kind=event.kind.value, by=subjects.COORDINATOR)
        self.publisher.tell(subject, encode(event))

    async def store(self, key: str, content: bytes) -> None:
        """Put an output into the object store."""
        await self.objects.put(key, content, deadline=Deadline.after(STORE))
