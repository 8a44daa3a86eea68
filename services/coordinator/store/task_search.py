"""The conditions by which tasks are found: by words, status, names."""

from collections.abc import Collection

from sqlalchemy import ColumnElement, or_, select

from schemas.tasks import TaskFilter, TaskStatus
from services.coordinator.store.tables import tasks

#: The columns in which a word is looked for; the reason of a failed task is its error.
_SEARCHED = (tasks.c.id, tasks.c.context_id, tasks.c.agent_slug, tasks.c.worker_id, tasks.c.prompt, tasks.c.reason)


def conditions(
    wanted: TaskFilter, *, of: Collection[TaskStatus] = (), through: str | None = None
) -> list[ColumnElement[bool]]:
    """Return the conditions of a filter; also only states among `of`, and places up to that of the task `through`."""
    exact = {tasks.c[name]: getattr(wanted, name) for name in ("status", "context_id", "agent_slug", "worker_id")}
    found = [column == value for column, value in exact.items() if value is not None]
    found += [or_(*(column.icontains(word, autoescape=True) for column in _SEARCHED)) for word in wanted.q.split()]
    if of:
        found.append(tasks.c.status.in_([status.value for status in of]))
    if through is not None:
        found.append(tasks.c.seq <= select(tasks.c.seq).where(tasks.c.id == through).scalar_subquery())
    return found
