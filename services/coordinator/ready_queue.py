"""The queue of ready tasks: by labels, by priority, and fair between contexts.

Plain data, no I/O. Contexts of one priority take turns; within a context tasks keep their order. `contexts` decides
which task of a serial context may be here. Tasks with labels that no worker has do not slow the others.
"""

from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice

from services.coordinator.machine import TaskState

#: Contexts of one lane that one pass considers.
CROWD = 1_024
#: One more than the largest priority.
PRIORITIES = 10


@dataclass(slots=True)
class _Lane:
    """The contexts of one set of labels and one priority, in the order of their turns, with their ready tasks."""

    contexts: OrderedDict[str, deque[TaskState]] = field(default_factory=OrderedDict[str, deque[TaskState]])


class ReadyQueue:
    """The ready tasks."""

    def __init__(self) -> None:
        self._lanes: dict[frozenset[str], list[_Lane]] = {}
        #: What is queued; a task of a lane that is not the same object here was removed.
        self._queued: dict[str, TaskState] = {}

    def __len__(self) -> int:
        return len(self._queued)

    def demands(self) -> list[frozenset[str]]:
        """Return the sets of labels of ready tasks; drop the sets that no task has any more."""
        self._lanes = {demand: lanes for demand, lanes in self._lanes.items() if any(lane.contexts for lane in lanes)}
        return list(self._lanes)

    def add(self, task: TaskState, *, first: bool = False) -> None:
        """Queue a task at the end of its context, or in front when it comes back (`first`)."""
        lanes = self._lanes.setdefault(task.labels, [_Lane() for _ in range(PRIORITIES)])
        waiting = lanes[task.priority].contexts.setdefault(task.context_id, deque())
        if first:
            waiting.appendleft(task)
        else:
            waiting.append(task)
        self._queued[task.id] = task

    def remove(self, task: TaskState) -> None:
        """Remove a task, wherever it is."""
        self._queued.pop(task.id, None)

    def candidates(self, demand: frozenset[str]) -> Iterator[TaskState]:
        """Yield the next task of each context, most urgent first; `take` removes the chosen ones."""
        for lane in reversed(self._lanes.get(demand, [])):
            crowded = len(lane.contexts) > CROWD
            for context in list(islice(lane.contexts, CROWD)):
                task = self._head(lane, context)
                if task is not None:
                    yield task
                if crowded and context in lane.contexts:
                    # Contexts that cannot run now must not keep the others out of view.
                    lane.contexts.move_to_end(context)

    def is_next(self, task: TaskState) -> bool:
        """Whether a task is the next one of its context, so that `take` accepts it."""
        lanes = self._lanes.get(task.labels)
        lane = lanes[task.priority] if lanes is not None else None
        return lane is not None and task.context_id in lane.contexts and self._head(lane, task.context_id) is task

    def take(self, task: TaskState) -> None:
        """Remove a task that `candidates` yielded; its context goes behind all others."""
        lane = self._lanes[task.labels][task.priority]
        waiting = lane.contexts[task.context_id]
        waiting.popleft()
        del self._queued[task.id]
        if waiting:
            lane.contexts.move_to_end(task.context_id)
        else:
            del lane.contexts[task.context_id]

    def _head(self, lane: _Lane, context: str) -> TaskState | None:
        waiting = lane.contexts[context]
        while waiting and self._queued.get(waiting[0].id) is not waiting[0]:
            waiting.popleft()
        if not waiting:
            del lane.contexts[context]
            return None
        return waiting[0]
