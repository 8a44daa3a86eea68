"""The book of one term: every live task and lease, and the one way in which either changes.

A change is made here and written to the ledger in the same breath; whoever asked waits until it is durable. When a
write fails the term is over and this book is thrown away, so that it never says more than the database will.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from msgspec.structs import replace

from membridge.errors import InvalidRequestError, LeaseLostError, NotFoundError
from schemas.runtime import Lease, LeaseClaim, LeaseStatus, Task, TaskStatus
from services.coordinator.board import Board
from services.coordinator.fleet import Fleet
from services.coordinator.machine import HELD, LIVE, TaskState
from services.coordinator.timers import Timers
from services.database.ledger import Ledger
from services.database.records import lease_row, task_row
from services.database.statements import (
    INSERT_AUDIT,
    INSERT_LEASE,
    INSERT_TASK,
    UPDATE_LEASE,
    UPDATE_TASK,
    Write,
)


@dataclass(frozen=True, slots=True)
class Said:
    """What the audit says of a change: what was done, by whom, and why."""

    action: str
    actor: str
    detail: str = ""


@dataclass(slots=True)
class Held:
    """An active lease and the timer of its expiry.

    `by_server`: its end is the server's to tell, because it was in KV when this term began and not heard of since.
    """

    lease: Lease
    timer: int
    by_server: bool = False


@dataclass(frozen=True, slots=True)
class Listeners:
    """Who is told at once: of a lease that ended, of one whose time is up, of a task whose wait is over (by id)."""

    ended: Callable[[Lease], None]
    expired: Callable[[str], None]
    due: Callable[[str], None]


class Book:
    """The live tasks and leases."""

    def __init__(self, ledger: Ledger, fleet: Fleet, timers: Timers, listeners: Listeners, *, serial: bool) -> None:
        self._ledger, self._fleet, self._timers, self._listeners = ledger, fleet, timers, listeners
        self.board = Board(serial=serial)
        self.tasks: dict[str, TaskState] = {}
        self.leases: dict[str, Held] = {}
        #: When each queued task became ready, in seconds of the loop's clock; the timers of those that wait.
        self._ready_since: dict[str, float] = {}
        self._waiting: dict[str, int] = {}

    def live(self, task_id: str) -> TaskState:
        """Return a live task. Raises NotFoundError for one that ended or never was."""
        found = self.tasks.get(task_id)
        if found is None:
            raise NotFoundError(f"there is no live task {task_id}")
        return found

    def claimed(self, claim: LeaseClaim) -> tuple[TaskState, Held]:
        """Return the task and lease that `claim` speaks for; raise LeaseLostError when that is not the live one."""
        held, task = self.leases.get(claim.lease_id), self.tasks.get(claim.task_id)
        if held is None or task is None or task.lease_id != claim.lease_id:
            raise LeaseLostError(f"lease {claim.lease_id} of task {claim.task_id} is not the live one")
        if held.lease.worker_id != claim.worker_id:
            raise LeaseLostError(f"lease {claim.lease_id} is not worker {claim.worker_id}'s")
        return task, held

    def waited(self, task: TaskState, now: float) -> float:
        """Return the seconds for which a queued task has been ready."""
        return max(0.0, now - self._ready_since.get(task.id, now))

    def create(self, task: Task, *, actor: str) -> "asyncio.Future[None]":
        """Take in a new task. Raises InvalidRequestError for an instant that is none."""
        state = state_of(task)
        writes = [Write(INSERT_TASK, task_row(task, not_before=state.not_before))]
        done = self._ledger.submit([*writes, audit(Said("submitted", actor), task.id, task.created_at)])
        self._take_in(state)
        return done

    def load(self, state: TaskState) -> None:
        """Take in a task that the database has."""
        self._take_in(state)

    def load_lease(self, lease: Lease, remaining: float, *, by_server: bool) -> None:
        """Take in a lease that the database has, with the seconds that it has left at most."""
        self.board.hold(lease.context_id)
        self._fleet.give(lease.worker_id)
        self._watch(lease, remaining)
        self.leases[lease.id].by_server = by_server

    def end_orphan(self, lease: Lease) -> None:
        """End a lease of the database that no task is held under."""
        self._ledger.submit([_update_lease(replace(lease, status=LeaseStatus.EXPIRED))])

    def grant(self, before: TaskState, after: TaskState, lease: Lease, said: Said) -> "asyncio.Future[None]":
        """Give a queued task, that the board was asked for, to a worker."""
        self.board.take(before)
        self._ready_since.pop(before.id, None)
        self._fleet.give(lease.worker_id)
        self._watch(lease, lease.ttl_seconds)
        self.tasks[after.id] = after
        writes = [_update(after, lease.started_at), Write(INSERT_LEASE, lease_row(lease))]
        return self._ledger.submit([*writes, audit(said, after.id, lease.started_at)])

    def change(
        self, before: TaskState, after: TaskState, said: Said, *, lease: LeaseStatus = LeaseStatus.RELEASED,
        also: Sequence[Write] = (),
    ) -> "asyncio.Future[None]":  # fmt: skip
        """Make `after` of a task; a lease that thereby ends becomes `lease`."""
        at = stamp()
        writes = [_update(after, at), *also, audit(said, after.id, at)]
        if after.status not in HELD and before.lease_id in self.leases:
            writes.append(self._end_lease(self.leases[before.lease_id], lease, at))
        self._leave(before)
        self._take_in(after, back=before.status in HELD)
        return self._ledger.submit(writes)

    def renew(self, held: Held) -> "asyncio.Future[None]":
        """Let a lease live for its whole time again."""
        now = datetime.now(UTC)
        held.lease = replace(
            held.lease,
            last_heartbeat=stamp(now),
            expires_at=stamp(now + timedelta(seconds=held.lease.ttl_seconds)),
        )
        self._timers.cancel(held.timer)
        held.timer, held.by_server = self._timer(held.lease, held.lease.ttl_seconds), False
        return self._ledger.submit([_update_lease(held.lease)])

    def write(self, *writes: Write) -> "asyncio.Future[None]":
        """Write what is neither a task nor a lease."""
        return self._ledger.submit(writes)

    def _take_in(self, state: TaskState, *, back: bool = False) -> None:
        if state.status not in LIVE:
            return
        self.tasks[state.id] = state
        if state.status is TaskStatus.FAILED or state.not_before > 0:
            self._waiting[state.id] = self._timers.after(
                state.not_before - datetime.now(UTC).timestamp(), lambda: self._due(state.id)
            )
        elif state.status is TaskStatus.QUEUED:
            self._ready_since[state.id] = asyncio.get_running_loop().time()
            self.board.add(state, first=back)

    def _leave(self, state: TaskState) -> None:
        self.tasks.pop(state.id, None)
        self._ready_since.pop(state.id, None)
        self.board.remove(state)
        timer = self._waiting.pop(state.id, None)
        if timer is not None:
            self._timers.cancel(timer)

    def _due(self, task_id: str) -> None:
        self._waiting.pop(task_id, None)
        self._listeners.due(task_id)

    def _end_lease(self, held: Held, status: LeaseStatus, at: str) -> Write:
        del self.leases[held.lease.id]
        self._timers.cancel(held.timer)
        self._fleet.take(held.lease.worker_id)
        self.board.free(held.lease.context_id)
        ended = replace(held.lease, status=status, last_heartbeat=at)
        self._listeners.ended(ended)
        return _update_lease(ended)

    def _watch(self, lease: Lease, seconds: float) -> None:
        self.leases[lease.id] = Held(lease, self._timer(lease, seconds))

    def _timer(self, lease: Lease, seconds: float) -> int:
        return self._timers.after(seconds, lambda: self._listeners.expired(lease.id))


def stamp(at: datetime | None = None) -> str:
    """Return an instant, or now, as the wire has it."""
    return (at or datetime.now(UTC)).isoformat(timespec="milliseconds")


def instant(text: str | None) -> float:
    """Return an instant of the wire in seconds, 0 for none. Raises InvalidRequestError."""
    if text is None:
        return 0.0
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidRequestError(f"{text!r} is no instant", field="not_before") from error
    if at.tzinfo is None:
        raise InvalidRequestError(f"{text!r} lacks its offset from UTC", field="not_before")
    return at.timestamp()


def state_of(task: Task, seq: int = 0) -> TaskState:
    """Return what of a task changes."""
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


def audit(said: Said, entity_id: str, at: str, entity_type: str = "task") -> Write:
    """Return the audit's row of a change."""
    row = {
        "timestamp": at,
        "action": said.action,
        "entity_type": entity_type,
        "entity_id": entity_id,
        "actor": said.actor,
        "detail": said.detail,
    }
    return Write(INSERT_AUDIT, row)
