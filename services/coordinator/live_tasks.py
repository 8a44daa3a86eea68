"""The live tasks and active leases of one tenure, in memory, and the one way in which either changes.

A change is submitted to the group commit first and then made here, without an await in between; the request waits until
it is durable. When the database rejects a change, the task is dropped here and read again.
"""

import asyncio
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

from msgspec.structs import replace

from membridge.errors import InvalidRequestError, LeaseLostError, NotFoundError
from membridge.system import clock
from schemas.leases import Lease, LeaseClaim, LeaseStatus
from schemas.tasks import Task, TaskStatus
from services.coordinator.contexts import Contexts
from services.coordinator.machine import HELD, LIVE, TaskState
from services.coordinator.ready_queue import ReadyQueue
from services.coordinator.store.queries import LATEST, lease_row, task_row
from services.coordinator.store.statements import INSERT_AUDIT, INSERT_LEASE, INSERT_TASK, UPDATE_LEASE, UPDATE_TASK
from services.coordinator.timers import Timers
from services.coordinator.workers import Workers
from services.database.group_commit import GroupCommit, UnstorableError
from services.database.statements import Write


@dataclass(frozen=True, slots=True)
class AuditNote:
    """What the audit records of a change: the action, who asked for it, and why."""

    action: str
    actor: str
    detail: str = ""


@dataclass(slots=True)
class ActiveLease:
    """An active lease and the timer of its expiry.

    `by_server`: the entry in KV decides when it expires, because it was there when this tenure began and has not been
    renewed since.
    """

    lease: Lease
    timer: int
    by_server: bool = False


@dataclass(frozen=True, slots=True)
class Listeners:
    """Callbacks: a lease ended (with the future of its change), a lease expired, the wait of a task is over, and the
    database rejected a change of a task.
    """

    ended: Callable[[Lease, "asyncio.Future[None]"], None]
    expired: Callable[[str], None]
    due: Callable[[str], None]
    refused: Callable[[str], None]


class LiveTasks:
    """The live tasks and active leases."""

    def __init__(
        self, group_commit: GroupCommit, workers: Workers, timers: Timers, listeners: Listeners, *, serial: bool
    ) -> None:
        self._group_commit, self._workers, self._timers, self._listeners = group_commit, workers, timers, listeners
        self._serial = serial
        self._contexts = Contexts()
        self.queue = ReadyQueue()
        self.tasks: dict[str, TaskState] = {}
        self.leases: dict[str, ActiveLease] = {}
        #: When each ready task became ready, in seconds of the loop's clock; the timers of those that wait.
        self._ready_since: dict[str, float] = {}
        self._waiting: dict[str, int] = {}
        #: The last change of each task that is not durable yet.
        self._unsettled: dict[str, asyncio.Future[None]] = {}

    def get(self, task_id: str) -> TaskState:
        """Return a live task. Raises NotFoundError for one that ended or never existed."""
        found = self.tasks.get(task_id)
        if found is None:
            raise NotFoundError(f"there is no live task {task_id}")
        return found

    def claimed(self, claim: LeaseClaim) -> tuple[TaskState, ActiveLease]:
        """Return the task and lease that `claim` names; raise LeaseLostError when that lease is not the active one."""
        held, task = self.leases.get(claim.lease_id), self.tasks.get(claim.task_id)
        if held is None or task is None or task.lease_id != claim.lease_id:
            raise LeaseLostError(
                f"lease {claim.lease_id} of task {claim.task_id} has ended: "
                "it expired, or the task was cancelled, reported or given to another worker"
            )
        if held.lease.worker_id != claim.worker_id:
            raise LeaseLostError(f"lease {claim.lease_id} is not worker {claim.worker_id}'s")
        return task, held

    def waited(self, task: TaskState, now: float) -> float:
        """Return the seconds for which a queued task could have run."""
        return max(0.0, now - self._ready_since.get(task.id, now))

    def ahead(self, task: TaskState) -> TaskState | None:
        """Return the task of its context that a task waits for; None when it is this task's turn."""
        turn = self._contexts.turn(task.context_id) if self._serial else None
        return self.tasks.get(turn) if turn is not None and turn != task.id else None

    async def settled(self, task_id: str) -> None:
        """Wait until the last change of a task is durable or rejected."""
        while (change := self._unsettled.get(task_id)) is not None:
            await asyncio.wait({change})

    def admit(self) -> None:
        """Raise OverloadedError when too many changes wait for one more request."""
        self._group_commit.admit()

    def create(self, task: Task, *, actor: str) -> "asyncio.Future[None]":
        """Add a new task. Raises InvalidRequestError for an invalid time."""
        state = state_of(task)
        row = task_row(task, not_before=state.not_before)
        note = audit(AuditNote("submitted", actor), task.id, task.created_at)
        done = self._submit([Write(INSERT_TASK, row), note], task.id)
        self._contexts.append(state.context_id, state.id)
        self._take_in(state)
        return done

    def load(self, state: TaskState, lease: Lease | None, remaining: float, *, by_server: bool) -> None:
        """Add a task from the database, with its lease and the seconds that the lease has left at most.

        Tasks come in the order of their submission; `open` follows the last one.
        """
        if lease is not None:
            self._watch(lease, remaining)
            self.leases[lease.id].by_server = by_server
        self._contexts.append(state.context_id, state.id)
        self.tasks[state.id] = state
        self._set_timer(state)

    def open(self) -> None:
        """Queue the loaded tasks that can run."""
        for state in list(self.tasks.values()):
            self._offer(state)

    def forget(self, task_id: str) -> TaskState | None:
        """Drop a task, except for its place in its context; return its state.

        `reload` or `remove` must follow: until then no other task of the context begins.
        """
        self._group_commit.absolve(task_id)
        for held in [held for held in self.leases.values() if held.lease.task_id == task_id]:
            self._drop_lease(held)
        state = self.tasks.pop(task_id, None)
        if state is not None:
            self._withdraw(state)
        return state

    def reload(self, state: TaskState, lease: Lease | None, remaining: float, earlier: Collection[str]) -> None:
        """Add a task again after `forget`; `earlier` are the live tasks submitted before it."""
        if lease is not None:
            self._watch(lease, remaining)
        self._insert(state, earlier)
        self._take_in(state)

    def remove(self, state: TaskState) -> None:
        """Give up the place of a task after `forget`: it is not live any more."""
        self._contexts.remove(state.context_id, state.id)
        self._offer_next(state.context_id)

    def end_orphan(self, lease: Lease) -> None:
        """End a lease of the database that no live task has."""
        self._group_commit.submit([_update_lease(replace(lease, status=LeaseStatus.EXPIRED))])

    def grant(self, before: TaskState, after: TaskState, lease: Lease, note: AuditNote) -> "asyncio.Future[None]":
        """Lease a task to a worker; the ready queue has returned the task as a candidate."""
        writes = [_update(after, lease.started_at), Write(INSERT_LEASE, lease_row(lease))]
        done = self._submit([*writes, audit(note, after.id, lease.started_at)], after.id)
        self.queue.take(before)
        self._ready_since.pop(before.id, None)
        self._watch(lease, lease.ttl_seconds)
        self.tasks[after.id] = after
        return done

    def change(
        self,
        before: TaskState,
        after: TaskState,
        note: AuditNote,
        *,
        lease: LeaseStatus = LeaseStatus.RELEASED,
        also: Sequence[Write] = (),
        earlier: Collection[str] = (),
    ) -> "asyncio.Future[None]":
        """Change a task to `after`; if that ends its lease, the lease's status becomes `lease`.

        A revived task goes behind the tasks of its context that were submitted `earlier`.
        """
        at = clock.stamp()
        writes = [_update(after, at), *also, audit(note, after.id, at)]
        held = self.leases.get(before.lease_id or "") if after.status not in HELD else None
        ended = replace(held.lease, status=lease, last_heartbeat=at) if held is not None else None
        if ended is not None:
            writes.append(_update_lease(ended))
        done = self._submit(writes, after.id)
        if held is not None and ended is not None:
            self._drop_lease(held)
            self._listeners.ended(ended, done)
        self._withdraw(before)
        if after.status not in LIVE:
            self.tasks.pop(after.id, None)
            self._contexts.remove(after.context_id, after.id)
            self._offer_next(after.context_id)
            return done
        if before.status not in LIVE:
            self._insert(after, earlier)
        self._take_in(after, back=before.status in HELD)
        return done

    def renew(self, held: ActiveLease) -> "asyncio.Future[None]":
        """Renew a lease for its full time to live."""
        now = clock.now()
        renewed = replace(
            held.lease,
            last_heartbeat=clock.stamp(now),
            expires_at=clock.stamp(now + timedelta(seconds=held.lease.ttl_seconds)),
        )
        done = self._submit([_update_lease(renewed)], renewed.task_id)
        held.lease = renewed
        self._timers.cancel(held.timer)
        held.timer, held.by_server = self._timer(held.lease, held.lease.ttl_seconds), False
        return done

    def write(self, *writes: Write) -> "asyncio.Future[None]":
        """Write rows that are neither tasks nor leases."""
        return self._group_commit.submit(writes)

    def _submit(self, writes: Sequence[Write], task_id: str) -> "asyncio.Future[None]":
        done = self._group_commit.submit(writes, key=task_id)
        self._unsettled[task_id] = done
        done.add_done_callback(partial(self._settle, task_id))
        return done

    def _settle(self, task_id: str, done: "asyncio.Future[None]") -> None:
        if self._unsettled.get(task_id) is done:
            del self._unsettled[task_id]
        if not done.cancelled() and isinstance(done.exception(), UnstorableError):
            self._listeners.refused(task_id)

    def _take_in(self, state: TaskState, *, back: bool = False) -> None:
        self.tasks[state.id] = state
        self._set_timer(state)
        self._offer(state, back=back)
        # The end of a lease may have passed the turn to another task.
        self._offer_next(state.context_id)

    def _set_timer(self, state: TaskState) -> None:
        if state.status is TaskStatus.FAILED or (state.status is TaskStatus.QUEUED and state.not_before > 0):
            wait = state.not_before - clock.now().timestamp()
            self._waiting[state.id] = self._timers.after(wait, lambda: self._due(state.id))

    def _offer(self, state: TaskState, *, back: bool = False) -> None:
        """Put a task into the ready queue if it can run and it is its turn."""
        if state.status is not TaskStatus.QUEUED or state.id in self._waiting or state.id in self._ready_since:
            return
        if self._serial and self._contexts.turn(state.context_id) != state.id:
            return
        self._ready_since[state.id] = asyncio.get_running_loop().time()
        self.queue.add(state, first=back)

    def _offer_next(self, context: str) -> None:
        """Put the task into the ready queue whose turn has come."""
        turn = self._contexts.turn(context) if self._serial else None
        if turn is not None and turn in self.tasks:
            self._offer(self.tasks[turn])

    def _insert(self, state: TaskState, earlier: Collection[str]) -> None:
        """Insert a task at its place; the turn passes to it if the task that had it was submitted later."""
        before = self._contexts.turn(state.context_id)
        self._contexts.insert(state.context_id, state.id, earlier=earlier)
        if self._serial and before in self.tasks and self._contexts.turn(state.context_id) != before:
            self._take_off(self.tasks[before])

    def _take_off(self, state: TaskState) -> None:
        """Remove a task from the ready queue."""
        self._ready_since.pop(state.id, None)
        self.queue.remove(state)

    def _withdraw(self, state: TaskState) -> None:
        """Remove a task from the ready queue and stop its timer."""
        self._take_off(state)
        timer = self._waiting.pop(state.id, None)
        if timer is not None:
            self._timers.cancel(timer)

    def _due(self, task_id: str) -> None:
        self._waiting.pop(task_id, None)
        self._listeners.due(task_id)

    def _drop_lease(self, held: ActiveLease) -> None:
        del self.leases[held.lease.id]
        self._timers.cancel(held.timer)
        self._workers.take(held.lease.worker_id)
        self._contexts.free(held.lease.context_id, held.lease.task_id)

    def _watch(self, lease: Lease, seconds: float) -> None:
        self._contexts.hold(lease.context_id, lease.task_id)
        self._workers.give(lease.worker_id)
        self.leases[lease.id] = ActiveLease(lease, self._timer(lease, seconds))

    def _timer(self, lease: Lease, seconds: float) -> int:
        return self._timers.after(seconds, lambda: self._listeners.expired(lease.id))


def instant(text: str | None) -> float:
    """Return a time stamp in seconds, 0 for None. Raises InvalidRequestError."""
    if text is None:
        return 0.0
    try:
        at = clock.parse(text)
    except ValueError as error:
        raise InvalidRequestError(
            f"{text!r} is not a time with its offset from UTC",
            remedy="write it as 2026-01-31T18:00:00Z",
            field="not_before",
        ) from error
    if (seconds := at.timestamp()) > LATEST:
        raise InvalidRequestError(f"{text!r} is too far in the future", field="not_before")
    return max(0.0, seconds)


def state_of(task: Task, seq: int = 0) -> TaskState:
    """Return the part of a task that changes."""
    return TaskState(
        id=task.id,
        context_id=task.context_id,
        status=task.status,
        priority=task.priority,
        max_attempts=task.max_attempts,
        labels=frozenset(task.labels),
        timeout_sec=task.policy.timeout_sec,
        seq=seq,
        attempts=task.attempts,
        interruptions=task.interruptions,
        not_before=instant(task.not_before),
        lease_id=task.lease_id,
        worker_id=task.worker_id,
        reason=task.reason,
    )


def _update(task: TaskState, at: str) -> Write:
    row = {
        "b_id": task.id,
        "b_status": task.status.value,
        "b_updated_at": at,
        "b_not_before": task.not_before,
        "b_lease_id": task.lease_id,
        "b_worker_id": task.worker_id,
        "b_attempts": task.attempts,
        "b_interruptions": task.interruptions,
        "b_reason": task.reason,
    }
    return Write(UPDATE_TASK, row)


def _update_lease(lease: Lease) -> Write:
    row = {
        "b_id": lease.id,
        "b_status": lease.status.value,
        "b_expires_at": lease.expires_at,
        "b_last_heartbeat": lease.last_heartbeat,
    }
    return Write(UPDATE_LEASE, row)


def audit(note: AuditNote, entity_id: str, at: str, entity_type: str = "task") -> Write:
    """Return the audit's row of a change."""
    row = {
        "timestamp": at,
        "action": note.action,
        "entity_type": entity_type,
        "entity_id": entity_id,
        "actor": note.actor,
        "detail": note.detail,
    }
    return Write(INSERT_AUDIT, row)
