"""Workers that are not nodes: they request a task, and then report under its lease as every worker does.

They publish no presence, so the coordinator knows them by their requests only. Their leases expire as any other.
"""

import asyncio
import uuid

from membridge.errors import ConflictError, LeaseLostError
from membridge.system import clock
from schemas.leases import Leased, LeaseRequest
from schemas.tasks import TaskStatus
from services.coordinator.keyed_locks import KeyedLocks
from services.coordinator.live_tasks import AuditNote, LiveTasks, audit
from services.coordinator.machine import TaskState, WrongStateError
from services.coordinator.scheduler import Scheduler
from services.coordinator.store.queries import Queries
from services.coordinator.workers import Workers
from services.database.group_commit import durable

#: The UUID namespace of leases that were asked for with a nonce.
NAMESPACE = uuid.UUID("5b0e7a34-6f0c-4a53-9d6e-3f1c1f7f8f0a")


class Pulling:
    """Leases tasks to workers that request them."""

    def __init__(self, live_tasks: LiveTasks, workers: Workers, scheduler: Scheduler, queries: Queries) -> None:
        self._live_tasks, self._workers, self._scheduler, self._queries = live_tasks, workers, scheduler, queries
        self._locks = KeyedLocks()

    async def lease(self, request: LeaseRequest) -> Leased:
        """Lease a task to the worker, if there is one for it.

        Errors: NotFoundError, WrongStateError and ConflictError for a task that cannot be leased now, LeaseLostError
        for a nonce whose lease ended, ConflictError for a node's worker, which receives orders.
        """
        worker_id = request.worker_id
        if self._workers.takes_orders(worker_id):
            raise ConflictError(
                f"worker {worker_id} may not ask for tasks: a node of that name runs and is given them",
                remedy="choose another worker_id",
                field="worker_id",
            )
        lease_id = str(uuid.uuid5(NAMESPACE, f"{worker_id} {request.nonce}") if request.nonce else uuid.uuid4())
        async with self._locks.of(lease_id):
            held = self._live_tasks.leases.get(lease_id)
            if held is not None:
                await self._live_tasks.settled(held.lease.task_id)
                task = self._live_tasks.get(held.lease.task_id)
                return Leased(order=await self._scheduler.order(task, held.lease, None))
            if request.nonce and await self._queries.has_lease(lease_id):
                raise LeaseLostError(f"lease {lease_id} of this nonce has ended", remedy="ask with a new nonce")
            self._hear(request)
            if self._workers.is_drained(worker_id):
                return Leased(reason="the worker is drained")
            chosen = self._next(request) if request.task_id is None else await self._named(request.task_id)
            if chosen is None:
                return Leased(reason="no task waits that the worker may have")
            return await self._give(chosen, worker_id, lease_id)

    async def _give(self, chosen: TaskState, worker_id: str, lease_id: str) -> Leased:
        self._live_tasks.admit()
        note = AuditNote("leased", worker_id, f"{worker_id}: it asked for it")
        task, lease, done = self._scheduler.give(chosen, worker_id, note, lease_id=lease_id)
        await durable(done)
        self._scheduler.hold(lease)
        # It requested the task, so it starts now.
        await self._scheduler.start(task, lease)
        return Leased(order=await self._scheduler.order(self._live_tasks.get(task.id), lease, None))

    def _hear(self, request: LeaseRequest) -> None:
        now = clock.stamp()
        worker = self._workers.pull(request.worker_id, request.labels, asyncio.get_running_loop().time(), now)
        if writes := self._workers.register(worker, now):
            self._live_tasks.write(*writes, audit(AuditNote("registered", worker.id), worker.id, now, "worker"))

    def _next(self, request: LeaseRequest) -> TaskState | None:
        """Return the most urgent task whose labels the worker has; among equals the one that waits longest."""
        labels, now = frozenset(request.labels), asyncio.get_running_loop().time()
        queue = self._live_tasks.queue
        heads = [next(queue.candidates(demand), None) for demand in queue.demands() if demand <= labels]
        waiting = [task for task in heads if task is not None]
        return max(waiting, key=lambda task: (task.priority, self._live_tasks.waited(task, now)), default=None)

    async def _named(self, task_id: str) -> TaskState:
        """Return this task if it can run now. Errors: NotFoundError, WrongStateError, ConflictError when it waits."""
        live = self._live_tasks.tasks.get(task_id)
        status = live.status if live is not None else (await self._queries.task(task_id)).status
        live = self._live_tasks.tasks.get(task_id)
        if live is None or live.status is not TaskStatus.QUEUED:
            raise WrongStateError(f"task {task_id} is {live.status if live else status} and cannot be leased")
        if not self._live_tasks.queue.is_next(live):
            raise ConflictError(f"task {task_id} waits: {self._scheduler.explain(live)}", remedy="ask again later")
        return live
