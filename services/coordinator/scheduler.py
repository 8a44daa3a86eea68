"""Leases ready tasks to workers whenever either changes; nothing here polls.

One pass is synchronous: it decides and adds the leases to the live tasks. A background task for each lease does the
rest: it waits until the lease is durable, writes it to KV and sends the order. A worker that rejects an order returns
the task to the queue.
"""

import asyncio
import dataclasses
import uuid
from collections import OrderedDict
from collections.abc import Callable, Collection, Coroutine
from datetime import timedelta
from functools import partial

from msgspec.structs import replace

from membridge.errors import MembridgeError
from membridge.system import clock
from membridge.system.logging import get_logger
from schemas.leases import Lease, LeaseClaim, LeaseStatus, Order
from schemas.task_events import TaskEvent, TaskEventKind
from schemas.tasks import Task
from schemas.workers import WorkerStatus
from services.coordinator import machine
from services.coordinator.live_tasks import AuditNote, LiveTasks
from services.coordinator.machine import TaskState
from services.coordinator.port import Port
from services.coordinator.routing import Candidate, Decision, eligible, route
from services.coordinator.store.queries import Queries
from services.coordinator.timers import Timers
from services.coordinator.workers import Workers
from services.database.group_commit import durable

log = get_logger("membridge.coordinator")

#: Work that follows a change and that no request waits for.
BackgroundTask = Callable[[], Coroutine[object, object, None]]

#: Seconds for which a context prefers the worker that ran it last.
STICKY_SECONDS = 3_600.0
#: Characters of the reason why a worker rejected an order.
WHY = 500
#: Tasks just submitted whose prompts are kept in memory.
REMEMBERED = 512
#: Contexts whose workers are kept in memory at most.
CONTEXTS = 100_000


class Scheduler:
    """Leases tasks to workers during one tenure."""

    def __init__(  # noqa: PLR0913, PLR0917 - the parts of a tenure
        self,
        live_tasks: LiveTasks,
        workers: Workers,
        port: Port,
        queries: Queries,
        timers: Timers,
        in_background: Callable[[BackgroundTask], None],
        lease_of: Callable[[int], int],
    ) -> None:
        self._live_tasks, self._workers, self._port, self._queries = live_tasks, workers, port, queries
        self._timers, self._in_background, self._lease_of = timers, in_background, lease_of
        self._loop = asyncio.get_running_loop()
        self._sticky: OrderedDict[str, tuple[str, str | None, float]] = OrderedDict()
        self._submitted: OrderedDict[str, Task] = OrderedDict()
        self._patience: int | None = None
        self._again = False

    def load(self, sticky: dict[str, tuple[str, str | None]]) -> None:
        """Load which worker ran each context last, and the session there."""
        ends = self._loop.time() + STICKY_SECONDS
        for context, (worker, session) in sticky.items():
            self._sticky[context] = worker, session, ends

    def remember(self, task: Task) -> None:
        """Keep a task that was just submitted, so that its prompt is not read from the database again."""
        self._submitted[task.id] = task
        if len(self._submitted) > REMEMBERED:
            self._submitted.popitem(last=False)

    def stick(self, context_id: str, worker_id: str, session: str | None) -> None:
        """Prefer this worker for the next task of the context."""
        known = self._sticky.pop(context_id, None)
        if session is None and known is not None and known[0] == worker_id:
            session = known[1]
        self._sticky[context_id] = worker_id, session, self._loop.time() + STICKY_SECONDS
        if len(self._sticky) > CONTEXTS:
            self._sticky.popitem(last=False)
        self._in_background(partial(self._port.stick, context_id, worker_id, session))

    def explain(self, task: TaskState) -> str:
        """Return in words what a task waits for; an empty text when it waits for nothing."""
        if task.status in machine.HELD:
            return ""
        ahead = self._live_tasks.ahead(task)
        if ahead is None:
            return self._waits_for(task)
        if ahead.status in machine.HELD:
            return f"waits for task {ahead.id} of its context, which runs on {ahead.worker_id}"
        why = self._waits_for(ahead)
        return f"waits for task {ahead.id} of its context" + (f", which waits too: {why}" if why else "")

    def _waits_for(self, task: TaskState) -> str:
        """Return what the task waits for whose turn it is."""
        if task.status is machine.FAILED:
            return f"its next attempt begins at {clock.stamp(task.not_before)}"
        if task.not_before > 0:
            return f"it does not begin before {clock.stamp(task.not_before)}"
        decision = self._decide(task, self._workers.candidates())
        return decision.why if decision.worker is None else ""

    async def tell(self, task: TaskState, done: "asyncio.Future[None]") -> None:
        """Publish a change of a task once it is durable."""
        await durable(done)
        event = TaskEvent(
            task_id=task.id, kind=TaskEventKind.STATUS, at=clock.stamp(), text=task.reason, status=task.status,
            attempt=task.attempts,
        )  # fmt: skip
        await self._port.announce(event)

    def schedule(self) -> None:
        """Run a pass in the next turn of the event loop; several calls make one pass."""
        if not self._again:
            self._again = True
            self._loop.call_soon(self._pass)

    def _pass(self) -> None:
        self._again = False
        try:
            self._give_out()
        except MembridgeError as error:
            # The group commit has stopped: the tenure ends.
            log.debug("nothing given out", reason=error.message)

    def _give_out(self) -> None:
        if self._patience is not None:
            self._timers.cancel(self._patience)
            self._patience = None
        soonest: float | None = None
        workers = {worker.id: worker for worker in self._workers.candidates()}
        for demand in self._live_tasks.queue.demands():
            able = {name for name, worker in workers.items() if not eligible(demand, worker)}
            if all(workers[name].is_full for name in able):
                continue
            for task in self._live_tasks.queue.candidates(demand):
                decision = self._decide(task, workers.values())
                if decision.worker is not None:
                    self._grant(task, decision)
                    # If contexts are not serial, the next task of this one is for the next pass.
                    self.schedule()
                    one = workers[decision.worker]
                    workers[one.id] = _fuller(one)
                    if all(workers[name].is_full for name in able):
                        break
                elif decision.retry_after is not None:
                    soonest = min(decision.retry_after, soonest if soonest is not None else decision.retry_after)
        if soonest is not None:
            self._patience = self._timers.after(soonest, self.schedule)

    def _decide(self, task: TaskState, workers: Collection[Candidate]) -> Decision:
        now = self._loop.time()
        known = self._sticky.get(task.context_id)
        sticky = known[0] if known is not None and known[2] > now else None
        return route(task.labels, workers, sticky=sticky, waited=self._live_tasks.waited(task, now))

    def _grant(self, task: TaskState, decision: Decision) -> None:
        worker = decision.worker or ""
        note = AuditNote("leased", "coordinator", f"{worker}: {decision.stick.value}, {decision.why}")
        after, lease, done = self.give(task, worker, note, lease_id=str(uuid.uuid4()))
        known = self._sticky.get(task.context_id)
        session = known[1] if known is not None and known[0] == worker else None
        self._in_background(partial(self._deliver, after, lease, session, done))

    def give(
        self, task: TaskState, worker_id: str, note: AuditNote, *, lease_id: str
    ) -> "tuple[TaskState, Lease, asyncio.Future[None]]":
        """Lease a ready task to a worker; return task, lease and the future that is done when this is durable."""
        now, ttl = clock.now(), self._lease_of(task.timeout_sec)
        after = machine.lease(task, lease_id=lease_id, worker_id=worker_id)
        lease = Lease(
            id=lease_id,
            task_id=task.id,
            worker_id=worker_id,
            started_at=clock.stamp(now),
            expires_at=clock.stamp(now + timedelta(seconds=ttl)),
            ttl_seconds=ttl,
            last_heartbeat=clock.stamp(now),
            context_id=task.context_id,
        )
        done = self._live_tasks.grant(task, after, lease, note)
        self._in_background(partial(self.tell, dataclasses.replace(after, reason=note.detail), done))
        return after, lease, done

    async def _deliver(self, task: TaskState, lease: Lease, session: str | None, done: "asyncio.Future[None]") -> None:
        """Send the order once its lease is durable; a rejected task goes back to the queue."""
        await durable(done)
        self.hold(lease)
        try:
            order = await self.order(task, lease, session)
        except MembridgeError as error:
            # The first time at once, then after a growing pause.
            often = task.interruptions
            until = clock.now().timestamp() + machine.backoff(often, 0.0) if often else 0.0
            self._take_back(task, lease, f"it could not be read: {error.message}", until)
            return
        if self._leased(task, lease) is None:
            # Cancelled meanwhile: the request to stop it may have reached the worker already.
            return
        claim = LeaseClaim(lease_id=lease.id, task_id=task.id, worker_id=lease.worker_id)
        try:
            answer = await self._port.send(order)
        except MembridgeError as error:
            self._decline(task, lease, error.message)
            # It may have taken the task although its answer was lost.
            await self._port.stop(claim)
            return
        if not answer.accepted:
            self._decline(task, lease, answer.reason or "it gave no reason")
            return
        live = self._live_tasks.tasks.get(task.id)
        if live is None or live.lease_id != lease.id:
            # Cancelled during the request: a stop that overtook the order found nothing to stop.
            await self._port.stop(claim)
            return
        await self.start(task, lease)

    async def order(self, task: TaskState, lease: Lease, session: str | None) -> Order:
        """Return the order for a worker: the whole task and its lease."""
        whole = self._submitted.pop(task.id, None) or await self._queries.task(task.id)
        whole = replace(
            whole, status=task.status, lease_id=lease.id, worker_id=lease.worker_id, attempts=task.attempts,
            interruptions=task.interruptions,
        )  # fmt: skip
        return Order(task=whole, lease=lease, resumes=session)

    async def start(self, task: TaskState, lease: Lease) -> None:
        """Note that the worker runs the task, unless its lease has ended."""
        before = self._leased(task, lease)
        if before is not None:
            after = machine.start(before)
            note = AuditNote("started", lease.worker_id)
            change = self._live_tasks.change(before, after, note, lease=LeaseStatus.ACTIVE)
            await self.tell(after, change)

    def hold(self, lease: Lease) -> None:
        """Write a durable lease to KV, in the background."""
        self._in_background(partial(self._port.hold, lease))

    def _leased(self, task: TaskState, lease: Lease) -> TaskState | None:
        """Return the task while it is leased under this lease and has not started; None otherwise."""
        live = self._live_tasks.tasks.get(task.id)
        given = live is not None and live.status is machine.LEASED and live.lease_id == lease.id
        return live if given else None

    def _decline(self, task: TaskState, lease: Lease, why: str) -> None:
        """Take a task back that its worker rejected."""
        # No more tasks for it until its next presence message.
        self._workers.lose(lease.worker_id, WorkerStatus.UNKNOWN, why[:WHY])
        self._take_back(task, lease, f"{lease.worker_id} did not take it: {why}")

    def _take_back(self, task: TaskState, lease: Lease, why: str, until: float = 0.0) -> None:
        before = self._leased(task, lease)
        if before is None:
            return
        after = machine.hand_back(before, reason=why[:WHY], until=until)
        change = self._live_tasks.change(before, after, AuditNote("handed_back", lease.worker_id, after.reason))
        self._in_background(partial(self.tell, after, change))
        self.schedule()


def _fuller(worker: Candidate) -> Candidate:
    return Candidate(
        worker.id, worker.declines, worker.claude_cli, worker.labels, worker.active + 1, worker.max_concurrency,
        worker.heard,
    )  # fmt: skip
