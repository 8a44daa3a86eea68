"""The queue of ready tasks: by what they ask for, by priority, and fair between contexts.

Plain data, no I/O. Of one priority, contexts take turns; within a context tasks keep their order. Which task of
a serial context may be here is decided elsewhere (`order`). Tasks that ask for labels nobody has cost others nothing.
"""

from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice

from services.coordinator.machine import TaskState

#: Contexts of one lane that one pass looks at.
CROWD = 1_024
#: One more than the largest priority.
PRIORITIES = 10


@dataclass(slots=True)
class _Lane:
    """The contexts of one demand and priority, in the order of their turns, and the ready tasks of each."""

    contexts: OrderedDict[str, deque[TaskState]] = field(default_factory=OrderedDict[str, deque[TaskState]])


class ReadyQueue:
    """The ready tasks."""

    def __init__(self) -> None:
        self._lanes: dict[frozenset[str], list[_Lane]] = {}
        #: What is queued; an entry of a lane that is not the one here was taken out.
        self._queued: dict[str, TaskState] = {}

    def __len__(self) -> int:
        return len(self._queued)

    def demands(self) -> list[frozenset[str]]:
        """Return the sets of labels that ready tasks ask for; forget those that none asks for any more."""
        self._lanes = {demand: lanes for demand, lanes in self._lanes.items() if any(lane.contexts for lane in lanes)}
        return list(self._lanes)

    def add(self, task: TaskState, *, first: bool = False) -> None:
        """Queue a task at the end of its context, or `first`: it comes back and keeps its place."""
        lanes = self._lanes.setdefault(task.labels, [_Lane() for _ in range(PRIORITIES)])
        waiting = lanes[task.priority].contexts.setdefault(task.context_id, deque())
        if first:
            waiting.appendleft(task)
        else:
            waiting.append(task)
        self._queued[task.id] = task

    def remove(self, task: TaskState) -> None:
        """Take a task out, wherever it stands."""
        self._queued.pop(task.id, None)

    def candidates(self, demand: frozenset[str]) -> Iterator[TaskState]:
        """Yield the next task of each context, most urgent first; `take` what was decided on."""
        for lane in reversed(self._lanes.get(demand, [])):
            crowded = len(lane.contexts) > CROWD
            for context in list(islice(lane.contexts, CROWD)):
                task = self._head(lane, context)
                if task is not None:
                    yield task
                if crowded and context in lane.contexts:
                    # Who could not run now does not keep the others from being looked at.
                    lane.contexts.move_to_end(context)

    def is_next(self, task: TaskState) -> bool:
        """Whether a task is the next one of its context, so that `take` may be given it."""
        lanes = self._lanes.get(task.labels)
        lane = lanes[task.priority] if lanes is not None else None
        return lane is not None and task.context_id in lane.contexts and self._head(lane, task.context_id) is task

    def take(self, task: TaskState) -> None:
        """Remove a task that `candidates` gave; its context's next turn is after all others'."""
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
