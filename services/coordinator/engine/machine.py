"""What may happen to a task: the state machine, as functions from a task's state to its next one.

Pure: instants are seconds of the wall clock that the caller passes, chance is a number in [0, 1). A step that is not
allowed raises WrongStateError and has changed nothing.
"""

import msgspec
from msgspec.structs import replace

from membridge.errors import ConflictError
from schemas.tasks import Task, TaskStatus

QUEUED, LEASED, RUNNING = TaskStatus.QUEUED, TaskStatus.LEASED, TaskStatus.RUNNING
COMPLETED, FAILED, DEAD = TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.DEAD

#: States in which a worker holds the task, and in which it may still change by itself.
HELD = frozenset({LEASED, RUNNING})
LIVE = frozenset({QUEUED, LEASED, RUNNING, FAILED})

#: Seconds before the second attempt; doubled for each further one, up to the most, with up to half of it added.
BACKOFF, MOST_BACKOFF = 2.0, 300.0
#: Interruptions that burn no attempt; those beyond do.
MOST_INTERRUPTIONS = 20


class WrongStateError(ConflictError):
    """The task is in a state in which this cannot happen to it."""


class TaskState(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The part of a task that changes, and what decides how it changes.

    `seq` is its place among all tasks; `not_before` is in seconds of the wall clock, 0 for at once.
    """

    id: str
    context_id: str
    status: TaskStatus
    priority: int
    max_attempts: int
    labels: frozenset[str]
    timeout_sec: int
    seq: int = 0
    attempts: int = 0
    interruptions: int = 0
    not_before: float = 0.0
    lease_id: str | None = None
    worker_id: str | None = None
    reason: str = ""


def state_of(task: Task, *, seq: int, not_before: float) -> TaskState:
    """Return the part of a task that changes; `not_before` in seconds of the wall clock."""
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
        not_before=not_before,
        lease_id=task.lease_id,
        worker_id=task.worker_id,
        reason=task.reason,
    )


def lease(task: TaskState, *, lease_id: str, worker_id: str) -> TaskState:
    """Give the task to a worker: an attempt begins."""
    _require(task, {QUEUED}, "leased")
    return replace(
        task, status=LEASED, lease_id=lease_id, worker_id=worker_id, attempts=task.attempts + 1, not_before=0.0,
        reason="",
    )  # fmt: skip


def start(task: TaskState) -> TaskState:
    """Note that the worker began; said twice it is no error."""
    _require(task, HELD, "started")
    return replace(task, status=RUNNING)


def complete(task: TaskState) -> TaskState:
    """Accept a success."""
    _require(task, HELD, "completed")
    return replace(task, status=COMPLETED, reason="")


def fail(task: TaskState, *, reason: str, now: float, chance: float) -> TaskState:
    """Accept an error: the task waits for its next attempt, or is dead when it has none left."""
    _require(task, HELD, "failed")
    if task.attempts >= task.max_attempts:
        return replace(task, status=DEAD, lease_id=None, reason=reason)
    wait = backoff(task.attempts, chance)
    return replace(task, status=FAILED, lease_id=None, not_before=now + wait, reason=reason)


def fall_due(task: TaskState) -> TaskState:
    """Let a task run whose wait is over: a failed one, or one that was not to begin before."""
    _require(task, {QUEUED, FAILED}, "queued")
    return replace(task, status=QUEUED, not_before=0.0)


def expire(task: TaskState) -> TaskState:
    """Take the task from a worker that was not heard of: that was an attempt."""
    _require(task, HELD, "expired")
    if task.attempts >= task.max_attempts:
        return replace(task, status=DEAD, lease_id=None, reason="its lease expired")
    return replace(task, status=QUEUED, lease_id=None, reason="its lease expired")


def hand_back(task: TaskState, *, reason: str, until: float = 0.0) -> TaskState:
    """Take the task back from a worker that stops: no attempt, unless that happened too often.

    It does not begin again before `until`.
    """
    _require(task, HELD, "handed back")
    if task.interruptions >= MOST_INTERRUPTIONS:
        ended = task.attempts >= task.max_attempts
        return replace(task, status=DEAD if ended else QUEUED, lease_id=None, reason=reason, not_before=until)
    return replace(
        task, status=QUEUED, lease_id=None, attempts=task.attempts - 1, interruptions=task.interruptions + 1,
        reason=reason, not_before=until,
    )  # fmt: skip


def cancel(task: TaskState, *, reason: str) -> TaskState:
    """End the task before its time."""
    _require(task, LIVE, "cancelled")
    return replace(task, status=DEAD, lease_id=None, reason=reason)


def requeue(task: TaskState) -> TaskState:
    """Revive a failed or dead task with all its attempts."""
    _require(task, {FAILED, DEAD}, "requeued")
    return replace(
        task, status=QUEUED, attempts=0, interruptions=0, not_before=0.0, lease_id=None, worker_id=None, reason=""
    )


def backoff(attempts: int, chance: float) -> float:
    """Return the seconds to wait after so many attempts."""
    wait = min(MOST_BACKOFF, BACKOFF * 2 ** (attempts - 1))
    return wait * (1.0 + chance / 2)


def _require(task: TaskState, allowed: frozenset[TaskStatus] | set[TaskStatus], verb: str) -> None:
    if task.status not in allowed:
        raise WrongStateError(f"task {task.id} is {task.status.value} and cannot be {verb}")
