"""One event being applied: the state, the instant, the effects so far, and the one way in which a task changes.

Whatever may raise does so before the first change.
"""

import hashlib

from msgspec.structs import replace

from membridge.errors import LeaseLostError
from membridge.system import clock
from schemas.leases import Lease, LeaseClaim, LeaseStatus
from schemas.task_events import TaskEvent, TaskEventKind
from schemas.workers import Worker
from services.coordinator.engine import machine, ready
from services.coordinator.engine.effects import (
    Arm,
    Disarm,
    Effect,
    Hold,
    LeaseChanged,
    NewLease,
    Noted,
    Release,
    TaskChanged,
    Tell,
)
from services.coordinator.engine.events import Due, Expired, Now
from services.coordinator.engine.ids import ordered_id
from services.coordinator.engine.machine import HELD, LIVE, TaskState
from services.coordinator.engine.state import Held, Known, State, waits

#: Who changes a task when nobody asked for it.
ITSELF = "coordinator"


class Step:
    """What a handler works on."""

    __slots__ = ("effects", "now", "state")

    def __init__(self, state: State, now: Now) -> None:
        self.state, self.now = state, now
        self.effects: list[Effect] = []

    def emit(self, effect: Effect) -> None:
        """Ask for an effect."""
        self.effects.append(effect)

    def note(self, action: str, entity_id: str, actor: str, detail: str = "", *, entity_type: str = "task") -> None:
        """Write into the audit what happened, who asked for it, and why."""
        self.effects.append(Noted(action, entity_type, entity_id, actor, detail, self.now.stamp))

    def tell(self, task: TaskState, text: str) -> None:
        """Publish a change of a task."""
        event = TaskEvent(
            task_id=task.id, kind=TaskEventKind.STATUS, at=self.now.stamp, text=text, status=task.status,
            attempt=task.attempts,
        )  # fmt: skip
        self.effects.append(Tell(event))

    def begin(self, task: TaskState) -> None:
        """Give a task that is new here its place in its context, its timer and its place in the queue."""
        state = self.state
        before = state.turn(task.context_id)
        state.insert(task)
        if state.limits.serial and before in state.tasks and state.turn(task.context_id) != before:
            # The task that had the turn was submitted later than this one, which was revived.
            ready.withdraw(state, state.tasks[before])
        state.put(state.tasks, task.id, task)
        self.await_turn(task)

    def change(
        self,
        before: TaskState,
        after: TaskState,
        action: str,
        actor: str,
        detail: str = "",
        *,
        lease: LeaseStatus = LeaseStatus.RELEASED,
    ) -> None:
        """Change a task to `after`; if that ends its lease, the lease's status becomes `lease`."""
        state = self.state
        self.effects.append(TaskChanged(after, self.now.stamp))
        self.note(action, after.id, actor, detail)
        self.tell(after, after.reason)
        if after.status in HELD:
            state.put(state.tasks, after.id, after)
            return
        if before.status in HELD and (held := state.leases.get(before.lease_id or "")) is not None:
            self.end_lease(held, lease)
        self._withdraw(before)
        if after.status not in LIVE:
            state.drop(state.tasks, after.id)
            state.remove(after)
            ready.offer_next(state, after.context_id, self.now.loop)
        elif before.status in LIVE:
            state.put(state.tasks, after.id, after)
            self.await_turn(after)
        else:
            self.begin(after)

    def expire(self, task: TaskState, detail: str = "") -> None:
        """Take a task from a worker that was not heard of."""
        after = machine.expire(task)
        self.change(task, after, "expired", ITSELF, detail or after.reason, lease=LeaseStatus.EXPIRED)

    def hand_back(self, task: TaskState, actor: str, reason: str, until: float = 0.0) -> None:
        """Take a task back from a worker that does not run it; it does not begin again before `until`."""
        self.change(task, machine.hand_back(task, reason=reason, until=until), "handed_back", actor, reason)

    def grant(
        self, before: TaskState, worker_id: str, actor: str, detail: str, lease_id: str
    ) -> tuple[TaskState, Lease]:
        """Lease a ready task to a worker."""
        state, now, ttl = self.state, self.now, self.state.limits.lease_of(before.timeout_sec)
        after = machine.lease(before, lease_id=lease_id, worker_id=worker_id)
        lease = Lease(
            id=lease_id,
            task_id=before.id,
            worker_id=worker_id,
            started_at=now.stamp,
            expires_at=clock.stamp(now.wall + ttl),
            ttl_seconds=ttl,
            last_heartbeat=now.stamp,
            context_id=before.context_id,
        )
        self.effects += (TaskChanged(after, now.stamp), NewLease(lease))
        self.note("leased", after.id, actor, detail)
        self.tell(after, detail)
        ready.withdraw(state, before, behind=True)
        state.put(state.tasks, after.id, after)
        state.put(state.fresh_keys, timer_of_lease(lease_id), before.id)
        self.watch(Held(lease=lease, until=now.loop + ttl))
        self.effects.append(Hold(lease))
        return after, lease

    def watch(self, held: Held) -> None:
        """Add an active lease, with the timer of its expiry."""
        state, lease = self.state, held.lease
        state.hold(lease.context_id, lease.task_id, held=True)
        state.put(state.leases, lease.id, held)
        known = state.workers.get(lease.worker_id)
        if known is None:
            # A lease of an earlier tenure, and no presence of its worker yet.
            known = Known(worker=Worker(id=lease.worker_id, node_id=lease.worker_id), heard=0.0)
        state.put(state.workers, lease.worker_id, replace(known, held=known.held + 1))
        self.effects.append(expiry(held))

    def end_lease(self, held: Held, status: LeaseStatus) -> None:
        """End an active lease."""
        state, lease = self.state, replace(held.lease, status=status, last_heartbeat=self.now.stamp)
        state.drop(state.leases, lease.id)
        state.hold(lease.context_id, lease.task_id, held=False)
        known = state.workers[lease.worker_id]
        state.put(state.workers, lease.worker_id, replace(known, held=known.held - 1))
        state.stir()
        self.effects += (LeaseChanged(lease), Disarm(timer_of_lease(lease.id)), Release(lease))

    def new_lease_id(self) -> str:
        """Return the id of the next lease."""
        number = self.state.next("grant").to_bytes(8, "big")
        return ordered_id(self.now.wall, hashlib.blake2b(number, key=self.state.seed, digest_size=10).digest())

    def await_turn(self, task: TaskState) -> None:
        """Arm the timer of a task that waits for an instant, and queue what can run now."""
        if waits(task):
            at = self.now.loop + max(0.0, task.not_before - self.now.wall)
            self.effects.append(Arm(timer_of_task(task.id), at, Due(task.id)))
        ready.offer(self.state, task, self.now.loop)
        # The end of a lease may have passed the turn to another task.
        ready.offer_next(self.state, task.context_id, self.now.loop)

    def _withdraw(self, task: TaskState) -> None:
        """Take a task out of the queue and stop its timer."""
        ready.withdraw(self.state, task)
        if waits(task):
            self.effects.append(Disarm(timer_of_task(task.id)))


def claimed(state: State, claim: LeaseClaim) -> tuple[TaskState, Held]:
    """Return the task and lease that `claim` names; raise LeaseLostError when that lease is not the active one."""
    held, task = state.leases.get(claim.lease_id), state.tasks.get(claim.task_id)
    if held is None or task is None or task.lease_id != claim.lease_id:
        raise LeaseLostError(
            f"lease {claim.lease_id} of task {claim.task_id} has ended: "
            "it expired, or the task was cancelled, reported or given to another worker"
        )
    if held.lease.worker_id != claim.worker_id:
        raise LeaseLostError(f"lease {claim.lease_id} is not worker {claim.worker_id}'s")
    return task, held


def claim_of(lease: Lease) -> LeaseClaim:
    """Return the claim of a lease."""
    return LeaseClaim(lease_id=lease.id, task_id=lease.task_id, worker_id=lease.worker_id)


def expiry(held: Held) -> Arm:
    """Return the timer of a lease."""
    return Arm(timer_of_lease(held.lease.id), held.until, Expired(held.lease.id))


def timer_of_lease(lease_id: str) -> str:
    """Return the name of the timer that ends a lease."""
    return f"lease {lease_id}"


def timer_of_task(task_id: str) -> str:
    """Return the name of the timer that ends the wait of a task."""
    return f"task {task_id}"
