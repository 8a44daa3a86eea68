"""Which ready task goes to which worker, and in words what a task waits for."""

import math
from collections.abc import Collection

import msgspec

from membridge.errors import ConflictError, LeaseLostError, NotFoundError
from membridge.system import clock
from schemas.leases import Leased
from services.coordinator.engine import machine, ready, routing, workers
from services.coordinator.engine.effects import Arm, Disarm, Reply, ReplyOrder, Send
from services.coordinator.engine.events import Asked, Stirred, UnreadError
from services.coordinator.engine.machine import FAILED, HELD, QUEUED, TaskState, WrongStateError
from services.coordinator.engine.routing import Candidate, Decision, eligible, route
from services.coordinator.engine.state import State
from services.coordinator.engine.step import ITSELF, Step, timer_of_lease

#: The timer that ends the waiting of contexts for their workers.
PATIENCE = "patience"


def place(step: Step) -> None:
    """Lease every ready task for which a worker is free. Of each context one task is considered."""
    state = step.state
    state.drop(state.counters, "stirred")
    soonest = math.inf
    all_workers = workers.candidates(state)
    for demand in ready.demands(state):
        free = sum(1 for one in all_workers.values() if not eligible(demand, one) and not one.is_full)
        if not free:
            continue
        for task in ready.candidates(state, demand):
            decision = _decide(state, task, all_workers.values(), step.now.loop)
            if decision.worker is not None:
                one = all_workers[decision.worker] = _send(step, task, all_workers[decision.worker], decision)
                free -= one.is_full
                if not free:
                    break
            else:
                # A worker is free, and this task waits for another one.
                soonest = min(soonest, decision.retry_after or routing.PATIENCE)
    step.emit(Disarm(PATIENCE) if soonest == math.inf else Arm(PATIENCE, step.now.loop + soonest, Stirred()))


def _send(step: Step, task: TaskState, worker: Candidate, decision: Decision) -> Candidate:
    """Lease a task to a worker and send the order; return the worker, fuller by one."""
    state = step.state
    detail = f"{worker.id}: {decision.stick.value}, {decision.why}"
    after, lease = step.grant(task, worker.id, ITSELF, detail, step.new_lease_id())
    known = state.ties.get(task.context_id)
    step.emit(Send(after, lease, known.session if known is not None and known.worker_id == worker.id else None))
    if not state.limits.serial:
        # The next task of the context is for the next pass.
        state.stir()
    return msgspec.structs.replace(worker, active=worker.active + 1)


def asked(step: Step, event: Asked) -> None:
    """Lease a task to a worker that asks, if there is one for it.

    Errors: NotFoundError, WrongStateError and ConflictError for a task that cannot be leased now, LeaseLostError
    for a nonce whose lease ended, ConflictError for a node's worker, which receives orders.
    """
    state, request = step.state, event.request
    worker_id = request.worker_id
    workers.check_pulls(state, worker_id)
    held = state.leases.get(event.lease_id)
    if held is not None:
        step.emit(ReplyOrder(state.tasks[held.lease.task_id], held.lease))
        return
    if request.nonce and _was_given(state, event):
        raise LeaseLostError(f"lease {event.lease_id} of this nonce has ended", remedy="ask with a new nonce")
    workers.pulled(step, request)
    if workers.is_drained(state, worker_id):
        step.emit(Reply(Leased(reason="the worker is drained")))
        return
    chosen = _next(step, event) if request.task_id is None else _named(step, event, request.task_id)
    if chosen is None:
        step.emit(Reply(Leased(reason="no task waits that the worker may have")))
    else:
        leased, lease = step.grant(chosen, worker_id, worker_id, f"{worker_id}: it asked for it", event.lease_id)
        # It requested the task, so it starts now.
        after = machine.start(leased)
        step.change(leased, after, "started", worker_id)
        step.emit(ReplyOrder(after, lease))


def _was_given(state: State, event: Asked) -> bool:
    """Whether the lease of this request existed before, also within this batch."""
    if timer_of_lease(event.lease_id) in state.fresh_keys:
        return True
    if event.used is msgspec.UNSET:
        raise UnreadError
    return event.used


def _next(step: Step, event: Asked) -> TaskState | None:
    """Return the most urgent task whose labels the worker has; among equals the one that waits longest."""
    state, labels = step.state, frozenset(event.request.labels)
    heads = [next(ready.candidates(state, demand), None) for demand in ready.demands(state) if demand <= labels]
    waiting = [task for task in heads if task is not None]
    return max(waiting, key=lambda task: (task.priority, ready.waited(state, task, step.now.loop)), default=None)


def _named(step: Step, event: Asked, task_id: str) -> TaskState:
    """Return this task if it can run now. Errors: NotFoundError, WrongStateError, ConflictError when it waits."""
    state, live = step.state, step.state.tasks.get(task_id)
    if live is None and event.status is msgspec.UNSET:
        raise UnreadError
    if live is None and event.status is None:
        raise NotFoundError(f"there is no task {task_id}", remedy="list them: `membridge task list`")
    if live is None or live.status is not QUEUED:
        raise WrongStateError(f"task {task_id} is {live.status if live else event.status} and cannot be leased")
    if not ready.is_next(state, live):
        raise ConflictError(f"task {task_id} waits: {explain(state, live, step.now.loop)}", remedy="ask again later")
    return live


def explain(state: State, task: TaskState, now: float) -> str:
    """Return in words what a task waits for; an empty text when it waits for nothing."""
    if task.status in HELD:
        return ""
    turn = state.turn(task.context_id) if state.limits.serial else None
    ahead = state.tasks.get(turn) if turn is not None and turn != task.id else None
    if ahead is None:
        return _waits_for(state, task, now)
    if ahead.status in HELD:
        return f"waits for task {ahead.id} of its context, which runs on {ahead.worker_id}"
    why = _waits_for(state, ahead, now)
    return f"waits for task {ahead.id} of its context" + (f", which waits too: {why}" if why else "")


def _waits_for(state: State, task: TaskState, now: float) -> str:
    """Return what the task waits for whose turn it is."""
    if task.status is FAILED:
        return f"its next attempt begins at {clock.stamp(task.not_before)}"
    if task.not_before > 0:
        return f"it does not begin before {clock.stamp(task.not_before)}"
    decision = _decide(state, task, workers.candidates(state).values(), now)
    if decision.worker is None:
        return decision.why
    # Where contexts are not serial, their tasks still begin in order.
    return "" if ready.is_next(state, task) else "an earlier task of its context begins first"


def _decide(state: State, task: TaskState, among: Collection[Candidate], now: float) -> Decision:
    known = state.ties.get(task.context_id)
    sticky = known.worker_id if known is not None and known.until > now else None
    return route(task.labels, among, sticky=sticky, waited=ready.waited(state, task, now))
