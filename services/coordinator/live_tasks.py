"""The book of one term: every live task and lease, and the one way in which either changes.

A change goes to the ledger first and is made here once that has taken it, in the same breath; whoever asked waits until
it is durable. When the database refuses a change, what the book believes of that task is thrown away and read again.
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
    """What the audit says of a change: what was done, by whom, and why."""

    action: str
    actor: str
    detail: str = ""


@dataclass(slots=True)
class ActiveLease:
    """An active lease and the timer of its expiry.

    `by_server`: its end is the server's to tell, because it was in KV when this term began and not heard of since.
    """

    lease: Lease
    timer: int
    by_server: bool = False


@dataclass(frozen=True, slots=True)
class Listeners:
    """Who is told at once.

    Of a lease that ended (and when that is durable), of one whose time is up, of a task whose wait is over and of one
    of which the database refused a change (by id).
    """

    ended: Callable[[Lease, "asyncio.Future[None]"], None]
    expired: Callable[[str], None]
    due: Callable[[str], None]
    refused: Callable[[str], None]


class LiveTasks:
    """The live tasks and leases."""

    def __init__(
        self, group_commit: GroupCommit, workers: Workers, timers: Timers, listeners: Listeners, *, serial: bool
    ) -> None:
        self._group_commit, self._workers, self._timers, self._listeners = group_commit, workers, timers, listeners
        self._serial = serial
        self._contexts = Contexts()
        self.queue = ReadyQueue()
        self.tasks: dict[str, TaskState] = {}
        self.leases: dict[str, ActiveLease] = {}
        #: When each task on the board came there, in seconds of the loop's clock; the timers of those that wait.
        self._ready_since: dict[str, float] = {}
        self._waiting: dict[str, int] = {}
        #: The last change of each task that is not durable yet.
        self._unsettled: dict[str, asyncio.Future[None]] = {}

    def get(self, task_id: str) -> TaskState:
        """Return a live task. Raises NotFoundError for one that ended or never was."""
        found = self.tasks.get(task_id)
        if found is None:
            raise NotFoundError(f"there is no live task {task_id}")
        return found

    def claimed(self, claim: LeaseClaim) -> tuple[TaskState, ActiveLease]:
        """Return the task and lease that `claim` speaks for; raise LeaseLostError when that is not the live one."""
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
        """Return the task of its context that a task waits for; None when it is its own turn."""
        turn = self._contexts.turn(task.context_id) if self._serial else None
        return self.tasks.get(turn) if turn is not None and turn != task.id else None

    async def settled(self, task_id: str) -> None:
        """Wait until the database says of a task what was last said here, or has refused to."""
        while (change := self._unsettled.get(task_id)) is not None:
            await asyncio.wait({change})

    def admit(self) -> None:
        """Raise OverloadedError when more changes wait than requests may add to."""
        self._group_commit.admit()

    def create(self, task: Task, *, actor: str) -> "asyncio.Future[None]":
        """Take in a new task. Raises InvalidRequestError for an instant that is none."""
        state = state_of(task)
        row = task_row(task, not_before=state.not_before)
        note = audit(AuditNote("submitted", actor), task.id, task.created_at)
        done = self._submit([Write(INSERT_TASK, row), note], task.id)
        self._contexts.append(state.context_id, state.id)
        self._take_in(state)
        return done

    def load(self, state: TaskState, lease: Lease | None, remaining: float, *, by_server: bool) -> None:
        """Take in a task that the database has, with its lease and the seconds that this has left at most.

        Tasks come in the order of their submission; `open` follows the last one.
        """
        if lease is not None:
            self._watch(lease, remaining)
            self.leases[lease.id].by_server = by_server
        self._contexts.append(state.context_id, state.id)
        self.tasks[state.id] = state
        self._set_timer(state)

    def open(self) -> None:
        """Offer what was loaded and can run."""
        for state in list(self.tasks.values()):
            self._offer(state)

    def forget(self, task_id: str) -> TaskState | None:
        """Throw away what is believed of a task, but for its place in its context; return what that was.

        `reload` or `remove` follows; until then no other task of the context begins.
        """
        self._group_commit.absolve(task_id)
        for held in [held for held in self.leases.values() if held.lease.task_id == task_id]:
            self._drop_lease(held)
        state = self.tasks.pop(task_id, None)
        if state is not None:
            self._withdraw(state)
        return state

    def reload(self, state: TaskState, lease: Lease | None, remaining: float, earlier: Collection[str]) -> None:
        """Take in a task again that was forgotten; `earlier` are the live tasks submitted before it."""
        if lease is not None:
            self._watch(lease, remaining)
        self._insert(state, earlier)
        self._take_in(state)

    def remove(self, state: TaskState) -> None:
        """Give up the place of a task that was forgotten and is not live."""
        self._contexts.remove(state.context_id, state.id)
        self._offer_next(state.context_id)

    def end_orphan(self, lease: Lease) -> None:
        """End a lease of the database that no task is held under."""
        self._group_commit.submit([_update_lease(replace(lease, status=LeaseStatus.EXPIRED))])

    def grant(self, before: TaskState, after: TaskState, lease: Lease, note: AuditNote) -> "asyncio.Future[None]":
        """Give a queued task, that the board was asked for, to a worker."""
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
        """Make `after` of a task; a lease that thereby ends becomes `lease`.

        A task that is revived goes behind those of its context that were submitted `earlier`.
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
        """Let a lease live for its whole time again."""
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
        """Write what is neither a task nor a lease."""
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
        # A lease that ended may have given the turn to another one.
        self._offer_next(state.context_id)

    def _set_timer(self, state: TaskState) -> None:
        if state.status is TaskStatus.FAILED or (state.status is TaskStatus.QUEUED and state.not_before > 0):
            wait = state.not_before - clock.now().timestamp()
            self._waiting[state.id] = self._timers.after(wait, lambda: self._due(state.id))

    def _offer(self, state: TaskState, *, back: bool = False) -> None:
        """Put a task on the board if it can run: it is ready, and it is its turn."""
        if state.status is not TaskStatus.QUEUED or state.id in self._waiting or state.id in self._ready_since:
            return
        if self._serial and self._contexts.turn(state.context_id) != state.id:
            return
        self._ready_since[state.id] = asyncio.get_running_loop().time()
        self.queue.add(state, first=back)

    def _offer_next(self, context: str) -> None:
        """Put the task on the board whose turn has come."""
        turn = self._contexts.turn(context) if self._serial else None
        if turn is not None and turn in self.tasks:
            self._offer(self.tasks[turn])

    def _insert(self, state: TaskState, earlier: Collection[str]) -> None:
        """Put a task into its place; one that was submitted later has its turn later, too."""
        before = self._contexts.turn(state.context_id)
        self._contexts.insert(state.context_id, state.id, earlier=earlier)
        if self._serial and before in self.tasks and self._contexts.turn(state.context_id) != before:
            self._take_off(self.tasks[before])

    def _take_off(self, state: TaskState) -> None:
        """Take a task off the board."""
        self._ready_since.pop(state.id, None)
        self.queue.remove(state)

    def _withdraw(self, state: TaskState) -> None:
        """Take a task off the board, and stop its timer."""
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
    """Return an instant of the wire in seconds, 0 for none. Raises InvalidRequestError."""
    if text is None:
        return 0.0
    try:
        at = clock.parse(text)
    except ValueError as error:
        raise InvalidRequestError(
            f"{text!r} is not a time with its zone", remedy="write it as 2026-01-31T18:00:00Z", field="not_before"
        ) from error
    if (seconds := at.timestamp()) > LATEST:
        raise InvalidRequestError(f"{text!r} is too far away", field="not_before")
    return max(0.0, seconds)


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
