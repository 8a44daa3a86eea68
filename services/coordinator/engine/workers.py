"""The workers of one tenure: what each last said, when it said that, and how many leases it holds.

How many leases a worker holds is counted here, never taken from its presence.
"""

from msgspec.structs import replace

from membridge.errors import ConflictError, NotFoundError, RefusedError
from schemas.leases import LeaseRequest
from schemas.workers import Capabilities, Registration, Worker, WorkerStatus
from services.coordinator.engine import machine
from services.coordinator.engine.effects import NewWorker, Reply, WorkerDrained, WorkerRemoved
from services.coordinator.engine.events import Believed, Drained, Heard, Introduced, Removed, Silent, UnreadError
from services.coordinator.engine.machine import RUNNING
from services.coordinator.engine.routing import Candidate
from services.coordinator.engine.state import Held, Known, Recorded, State
from services.coordinator.engine.step import ITSELF, Step


def heard(step: Step, event: Heard) -> None:
    """Take in the presence of a node's worker."""
    worker, state = event.worker, step.state
    _register(step, worker.id)
    known = state.workers.get(worker.id)
    if known is None or _ability(known.worker) != _ability(worker):
        state.stir()
    held = known.held if known is not None else 0
    state.put(state.workers, worker.id, Known(worker=worker, heard=step.now.loop, held=held))


def introduced(step: Step, event: Introduced) -> None:
    """Take in a worker that will ask for tasks itself. Raises ConflictError for a node's worker."""
    registration = event.registration
    check_pulls(step.state, registration.worker_id)
    pulled(step, registration)
    step.emit(Reply(shown(step.state, registration.worker_id)))


def check_pulls(state: State, worker_id: str) -> None:
    """Raise ConflictError for the name of a node's worker, which receives orders."""
    if takes_orders(state, worker_id):
        raise ConflictError(
            f"worker {worker_id} may not ask for tasks: a node of that name runs and is given them",
            remedy="choose another worker_id",
            field="worker_id",
        )


def pulled(step: Step, request: LeaseRequest | Registration) -> None:
    """Take in a worker that asks for tasks itself."""
    state, name = step.state, request.worker_id
    _register(step, name)
    worker = Worker(
        id=name, node_id=name, status=WorkerStatus.ONLINE, capabilities=Capabilities(labels=[*request.labels]),
        last_heartbeat=step.now.stamp, detail="leases its tasks itself",
    )  # fmt: skip
    known = state.workers.get(name)
    held = known.held if known is not None else 0
    state.put(state.workers, name, Known(worker=worker, heard=step.now.loop, held=held, pulls=True))


def speak(step: Step, worker_id: str) -> None:
    """Note a request under a lease of a worker that asks for tasks itself; nodes publish presence instead."""
    known = step.state.workers.get(worker_id)
    if known is not None and known.pulls:
        worker = replace(known.worker, status=WorkerStatus.ONLINE, last_heartbeat=step.now.stamp)
        step.state.put(step.state.workers, worker_id, replace(known, worker=worker, heard=step.now.loop))


def silent(step: Step, event: Silent) -> None:
    """Mark workers as offline."""
    for worker_id in event.worker_ids:
        lose(step, worker_id, WorkerStatus.OFFLINE, "not heard of")


def lose(step: Step, worker_id: str, status: WorkerStatus, detail: str) -> None:
    """Give a worker no more tasks until its next presence."""
    known = step.state.workers.get(worker_id)
    if known is not None:
        worker = replace(known.worker, status=status, detail=detail)
        step.state.put(step.state.workers, worker_id, replace(known, worker=worker))
        # Tasks that waited for this worker may go to another one.
        step.state.stir()


def believed(step: Step, event: Believed) -> None:
    """Reconcile the leases of a worker that started again, or that is new to this tenure, with what it runs.

    A task that should run there and does not was killed with the worker. A task that it may never have received goes
    back to the queue.
    """
    for lease_id in sorted(event.given):
        held = step.state.leases.get(lease_id)
        if held is None:
            continue
        task = step.state.tasks[held.lease.task_id]
        step.state.put(step.state.leases, lease_id, replace(held, unconfirmed=False))
        if task.id in event.running:
            if held.unconfirmed:
                step.change(task, machine.start(task), "started", event.worker_id)
        elif task.status is RUNNING:
            step.expire(task)
        elif held.unconfirmed:
            step.hand_back(task, ITSELF, f"{event.worker_id} never received it")


def drained(step: Step, event: Drained) -> None:
    """Give a worker no new tasks, or give them again. Raises NotFoundError."""
    worker = shown(step.state, event.worker_id)
    step.emit(WorkerDrained(worker.id, event.drained))
    step.state.put(step.state.fresh_keys, _row_of(worker.id), worker.id)
    step.note("drained" if event.drained else "resumed", worker.id, event.actor, entity_type="worker")
    step.state.put(step.state.recorded, worker.id, Recorded(worker.registered_at, event.drained))
    step.state.stir()
    step.emit(Reply(shown(step.state, worker.id)))


def removed(step: Step, event: Removed) -> None:
    """Forget an offline worker; if it comes back it is new. Errors: NotFoundError, RefusedError."""
    state, worker = step.state, shown(step.state, event.worker_id)
    if _row_of(worker.id) in state.fresh_keys:
        # A transaction deletes before it inserts and updates: the row must be there first.
        raise UnreadError
    if worker.active_leases:
        raise RefusedError(
            f"worker {worker.id} holds {worker.active_leases} task{'s' * (worker.active_leases > 1)}",
            remedy=f"drain it and wait: `membridge worker drain {worker.id}`, or cancel them",
        )
    known = state.workers.get(worker.id)
    if worker.status is not WorkerStatus.OFFLINE and not (known is not None and known.pulls):
        raise RefusedError(
            f"worker {worker.id} is {worker.status.value}: it would be back within seconds",
            remedy="stop its daemon first, or cut the machine off: `membridge nodes revoke`",
        )
    step.emit(WorkerRemoved(worker.id))
    step.note("removed", worker.id, event.actor, entity_type="worker")
    state.drop(state.workers, worker.id)
    state.drop(state.recorded, worker.id)
    step.emit(Reply(worker))


def given_to(state: State, worker_id: str) -> frozenset[str]:
    """Return the leases whose tasks this worker should run, or may never have received."""
    return frozenset(
        lease_id
        for lease_id, held in state.leases.items()
        if held.lease.worker_id == worker_id and (held.unconfirmed or _runs(state, held))
    )


def takes_orders(state: State, worker_id: str) -> bool:
    """Whether this is a node's worker and online: it receives orders."""
    known = state.workers.get(worker_id)
    if known is None or known.pulls or known.heard <= 0.0:
        return False
    return known.worker.status is not WorkerStatus.OFFLINE


def silent_since(state: State, instant: float) -> tuple[str, ...]:
    """Return the workers that count as online and sent no presence since."""
    return tuple(
        name
        for name, known in state.workers.items()
        if known.heard < instant and known.worker.status is not WorkerStatus.OFFLINE
    )


def is_drained(state: State, worker_id: str) -> bool:
    """Whether an operator has drained a worker."""
    recorded = state.recorded.get(worker_id)
    return recorded is not None and recorded.drained


def candidates(state: State) -> dict[str, Candidate]:
    """Return the workers as routing sees them."""
    return {
        name: Candidate(
            id=name,
            declines=_declines(known, drained=is_drained(state, name)),
            claude_cli=known.worker.capabilities.claude_cli,
            labels=frozenset(known.worker.capabilities.labels),
            active=known.held,
            max_concurrency=known.worker.capabilities.max_concurrency,
            heard=known.heard,
        )
        for name, known in state.workers.items()
    }


def all_shown(state: State) -> list[Worker]:
    """Return all workers by id, also those of earlier tenures; a drained one has that as its detail."""
    return [shown(state, name) for name in sorted({*state.workers, *state.recorded})]


def shown(state: State, worker_id: str) -> Worker:
    """Return a worker. Raises NotFoundError."""
    known, recorded = state.workers.get(worker_id), state.recorded.get(worker_id)
    if known is None and recorded is None:
        raise NotFoundError(f"there is no worker {worker_id}", remedy="list them: `membridge worker list`")
    if known is None:
        absent = Worker(id=worker_id, node_id=worker_id, status=WorkerStatus.OFFLINE, detail="not heard of")
        known = Known(worker=absent, heard=0.0)
    worker, recorded = known.worker, recorded or Recorded("")
    if recorded.drained and worker.status is WorkerStatus.ONLINE:
        worker = replace(worker, status=WorkerStatus.SYNCING, detail="drained")
    return replace(worker, active_leases=known.held, registered_at=recorded.registered_at)


def _register(step: Step, worker_id: str) -> None:
    """Write a worker that is seen for the first time."""
    if worker_id not in step.state.recorded:
        step.state.put(step.state.recorded, worker_id, Recorded(step.now.stamp))
        step.emit(NewWorker(worker_id, step.now.stamp))
        step.state.put(step.state.fresh_keys, _row_of(worker_id), worker_id)
        step.note("registered", worker_id, worker_id, entity_type="worker")


def _row_of(worker_id: str) -> str:
    return f"worker {worker_id}"


def _ability(worker: Worker) -> tuple[WorkerStatus, Capabilities]:
    return worker.status, worker.capabilities


def _runs(state: State, held: Held) -> bool:
    return state.tasks[held.lease.task_id].status is RUNNING


def _declines(known: Known, *, drained: bool) -> str:
    """Return in words why a worker gets no task now; an empty text when it may."""
    worker, detail = known.worker, known.worker.detail
    if known.pulls:
        return "leases its tasks itself"
    if drained and worker.status is not WorkerStatus.OFFLINE:
        return "is drained"
    if worker.status is WorkerStatus.ERROR and not worker.capabilities.claude_cli:
        return "has no claude program"
    bare, because = _REASONS[worker.status]
    return f"{because}: {detail}" if detail and because else bare


#: Why a worker of each status takes no task, without and with a detail.
_REASONS = {
    WorkerStatus.ONLINE: ("", ""),
    WorkerStatus.OFFLINE: ("is offline", ""),
    WorkerStatus.SYNCING: ("is starting or stopping", "takes no more tasks"),
    WorkerStatus.ERROR: ("has an error", "has an error"),
    WorkerStatus.UNKNOWN: ("has not been heard of yet", "did not take its last task"),
}
