"""What clients ask of tasks: submit, cancel, requeue."""

from msgspec import UNSET

from membridge.errors import NotFoundError
from services.coordinator.engine import machine
from services.coordinator.engine.effects import NewTask, Reply, ReplyTask, Stop
from services.coordinator.engine.events import Cancelled, KnownTask, Requeued, Submitted, UnreadError
from services.coordinator.engine.machine import TaskState
from services.coordinator.engine.step import Step, claim_of


def submitted(step: Step, event: Submitted) -> None:
    """Add a task; a repeated `idempotency_key` is answered with the first task."""
    state, task, key = step.state, event.task, event.task.idempotency_key
    if key is not None:
        name = f"key {key}"
        first = state.fresh_keys.get(name)
        if first is None and event.known is UNSET:
            raise UnreadError
        if first is not None or event.known is not None:
            step.emit(ReplyTask(first or str(event.known)))
            return
        state.put(state.fresh_keys, name, task.id)
    fresh = machine.state_of(task, seq=state.next("seq"), not_before=event.not_before)
    step.emit(NewTask(task, fresh))
    step.note("submitted", task.id, event.actor)
    step.tell(fresh, "")
    step.begin(fresh)
    step.emit(Reply(task))


def cancelled(step: Step, event: Cancelled) -> None:
    """End a live task, and stop the worker that runs it. Errors: NotFoundError, WrongStateError."""
    before = _task(step, event.task_id, event.known)
    after = machine.cancel(before, reason=event.reason or "cancelled")
    held = step.state.leases.get(before.lease_id or "")
    step.change(before, after, "cancelled", event.actor, after.reason)
    step.emit(ReplyTask(event.task_id))
    if held is not None:
        step.emit(Stop(claim_of(held.lease)))


def requeued(step: Step, event: Requeued) -> None:
    """Queue a failed or dead task again, at its old place. Errors: NotFoundError, WrongStateError."""
    before = _task(step, event.task_id, event.known)
    step.change(before, machine.requeue(before), "requeued", event.actor)
    step.emit(ReplyTask(event.task_id))


def _task(step: Step, task_id: str, known: KnownTask) -> TaskState:
    """Return a live task, or one that ended as the database has it."""
    live = step.state.tasks.get(task_id)
    if live is not None:
        return live
    if isinstance(known, TaskState):
        return known
    if known is None:
        raise NotFoundError(f"there is no task {task_id}", remedy="list them: `membridge task list`")
    raise UnreadError
