"""The order of each context's live tasks: whose turn it is, and for whom the others wait.

Plain data, no I/O. A task keeps its place from its submission to its end, whatever it waits for meanwhile: its next
attempt, an instant, a worker with its labels. Its priority counts against other contexts only.
"""

from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass, field


@dataclass(slots=True)
class _Line:
    """The live tasks of a context, first come first, and those of them that a worker holds."""

    tasks: OrderedDict[str, None] = field(default_factory=OrderedDict[str, None])
    held: dict[str, None] = field(default_factory=dict[str, None])


class Contexts:
    """The lines of all contexts that have live tasks."""

    def __init__(self) -> None:
        self._lines: dict[str, _Line] = {}

    def append(self, context: str, task_id: str) -> None:
        """Put a new task at the end of its context."""
        self._lines.setdefault(context, _Line()).tasks[task_id] = None

    def insert(self, context: str, task_id: str, *, earlier: Collection[str]) -> None:
        """Put a task that was revived back into its place: right behind the last of `earlier`, in front if none."""
        line = self._lines.setdefault(context, _Line())
        names = [name for name in line.tasks if name != task_id]
        place = max((index + 1 for index, name in enumerate(names) if name in earlier), default=0)
        line.tasks = OrderedDict.fromkeys([*names[:place], task_id, *names[place:]])

    def remove(self, context: str, task_id: str) -> None:
        """Take out a task that ended."""
        line = self._lines.get(context)
        if line is None:
            return
        line.tasks.pop(task_id, None)
        line.held.pop(task_id, None)
        if not line.tasks and not line.held:
            del self._lines[context]

    def hold(self, context: str, task_id: str) -> None:
        """Note that a worker holds a task."""
        self._lines.setdefault(context, _Line()).held[task_id] = None

    def free(self, context: str, task_id: str) -> None:
        """Note that no worker holds it any more."""
        line = self._lines.get(context)
        if line is None:
            return
        line.held.pop(task_id, None)
        if not line.tasks and not line.held:
            del self._lines[context]

    def turn(self, context: str) -> str | None:
        """Return whose turn it is: the task that a worker holds, or else the first."""
        line = self._lines.get(context)
        return next(iter(line.held or line.tasks), None) if line is not None else None
