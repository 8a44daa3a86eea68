"""How tasks are found: by words, status, names; and in which order they are listed."""

from collections.abc import Collection, Mapping
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, func, or_, select

from schemas.tasks import TaskFilter, TaskOrder, TasksRequest, TaskStatus
from services.coordinator.store.tables import tasks

#: The columns in which a word is looked for; the reason of a failed task is its error.
_SEARCHED = (tasks.c.id, tasks.c.context_id, tasks.c.agent_slug, tasks.c.worker_id, tasks.c.prompt, tasks.c.reason)


def conditions(
    wanted: TaskFilter, *, of: Collection[TaskStatus] = (), through: str | None = None, after: str | None = None
) -> list[ColumnElement[bool]]:
    """Return the conditions of a filter; also of states `of`, of tasks up to `through`, of those older than `after`."""
    exact = {tasks.c[name]: getattr(wanted, name) for name in ("status", "context_id", "agent_slug", "worker_id")}
    found = [column == value for column, value in exact.items() if value is not None]
    found += [or_(*(column.icontains(word, autoescape=True) for column in _SEARCHED)) for word in wanted.q.split()]
    if of:
        found.append(tasks.c.status.in_([status.value for status in of]))
    if through is not None:
        found.append(tasks.c.seq <= select(tasks.c.seq).where(tasks.c.id == through).scalar_subquery())
    if after is not None:
        found.append(tasks.c.seq < select(tasks.c.seq).where(tasks.c.id == after).scalar_subquery())
    return found


#: What an order compares; beside it tasks are compared by `seq`, which is the order in which they were submitted.
_COMPARED: Mapping[TaskOrder, ColumnElement[Any]] = {
    TaskOrder.UPDATED: tasks.c.updated_at,
    TaskOrder.STATUS: tasks.c.status,
    TaskOrder.AGENT: tasks.c.agent_slug,
    # The two databases put NULL at different ends.
    TaskOrder.WORKER: func.coalesce(tasks.c.worker_id, ""),
    TaskOrder.ATTEMPTS: tasks.c.attempts,
    TaskOrder.PRIORITY: tasks.c.priority,
}


def in_order(query: "Select[*tuple[Any, ...]]", wanted: TasksRequest) -> "Select[*tuple[Any, ...]]":
    """Return a query of tasks in the order of a request, from the end of its last page on."""
    keys = [tasks.c.seq] if wanted.order is TaskOrder.CREATED else [_COMPARED[wanted.order], tasks.c.seq]
    query = query.order_by(*(key.asc() if wanted.ascending else key.desc() for key in keys))
    if wanted.before is None:
        return query
    beyond, equal = list[ColumnElement[bool]](), list[ColumnElement[bool]]()
    for key in keys:
        last = select(key).where(tasks.c.id == wanted.before).correlate(None).scalar_subquery()
        beyond.append(and_(*equal, key > last if wanted.ascending else key < last))
        equal.append(key == last)
    return query.where(or_(*beyond))
