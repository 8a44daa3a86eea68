"""The ready tasks: by labels, by priority, and fair between contexts.

Contexts of one priority take turns; within a context tasks keep their order. Of a serial context only the task whose
turn it is may be here. Tasks with labels that no worker has do not slow the others.
"""

from collections.abc import Iterator
from itertools import islice

from services.coordinator.engine.machine import QUEUED, TaskState
from services.coordinator.engine.state import Lane, LaneKey, Place, State, inserted, waits, without

#: Contexts of one lane that one pass considers.
CROWD = 1_024


def offer(state: State, task: TaskState, now: float) -> None:
    """Queue a task if it can run and it is its turn."""
    if task.status is not QUEUED or waits(task) or task.id in state.ready_since:
        return
    if state.limits.serial and state.turn(task.context_id) != task.id:
        return
    state.put(state.ready_since, task.id, now)
    state.stir()
    lane = _lane(state, task)
    one, place = (task.seq, task.id), lane.get(task.context_id)
    if place is None:
        state.put(lane, task.context_id, Place(state.next("turn"), (one,)))
    else:
        state.put(lane, task.context_id, Place(place.turn, inserted(place.tasks, one)))


def offer_next(state: State, context: str, now: float) -> None:
    """Queue the task of a serial context whose turn has come."""
    turn = state.turn(context) if state.limits.serial else None
    if turn is not None:
        offer(state, state.tasks[turn], now)


def withdraw(state: State, task: TaskState, *, behind: bool = False) -> None:
    """Take a task out of the queue; with `behind`, its context goes behind all others."""
    if task.id not in state.ready_since:
        return
    state.drop(state.ready_since, task.id)
    key = _key(task)
    lane = state.lanes[key]
    place = lane[task.context_id]
    left = without(place.tasks, task.id)
    if not left:
        state.drop(lane, task.context_id)
        if not lane:
            state.drop(state.lanes, key)
    elif behind:
        _to_the_end(state, lane, task.context_id, left)
    else:
        state.put(lane, task.context_id, Place(place.turn, left))


def demands(state: State) -> list[frozenset[str]]:
    """Return the sets of labels of ready tasks."""
    return list(dict.fromkeys(labels for labels, _ in state.lanes))


def candidates(state: State, demand: frozenset[str]) -> Iterator[TaskState]:
    """Yield the next task of each context, most urgent first; the caller may withdraw what it is given."""
    for key in sorted((key for key in state.lanes if key[0] == demand), key=lambda key: -key[1]):
        lane = state.lanes[key]
        crowded = len(lane) > CROWD
        for context in list(islice(lane, CROWD)):
            yield state.tasks[lane[context].tasks[0][1]]
            if crowded and (place := lane.get(context)) is not None:
                # Contexts that cannot run now must not keep the others out of view.
                _to_the_end(state, lane, context, place.tasks)


def is_next(state: State, task: TaskState) -> bool:
    """Whether a task is the next one of its context."""
    if task.id not in state.ready_since:
        return False
    return state.lanes[_key(task)][task.context_id].tasks[0][1] == task.id


def waited(state: State, task: TaskState, now: float) -> float:
    """Return the seconds for which a task could have run."""
    return max(0.0, now - state.ready_since.get(task.id, now))


def _key(task: TaskState) -> LaneKey:
    return task.labels, task.priority


def _lane(state: State, task: TaskState) -> Lane:
    lane = state.lanes.get(_key(task))
    if lane is None:
        lane = Lane()
        state.put(state.lanes, _key(task), lane)
    return lane


def _to_the_end(state: State, lane: Lane, context: str, tasks: tuple[tuple[int, str], ...]) -> None:
    state.put(lane, context, Place(state.next("turn"), tasks))
    lane.move_to_end(context)
