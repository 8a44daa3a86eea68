"""Loads live tasks from the database: all when a tenure begins, and one after the database rejected its change."""

from collections.abc import Collection

from membridge.errors import NotFoundError
from membridge.system import clock
from schemas.leases import Lease
from schemas.tasks import Task, TaskStatus
from services.coordinator import machine
from services.coordinator.live_tasks import AuditNote, LiveTasks, state_of
from services.coordinator.store.queries import Queries

#: Live tasks that one query reads.
PAGE = 2_000


async def load(live_tasks: LiveTasks, queries: Queries, kept: Collection[str]) -> set[str]:
    """Load all live tasks, and their leases with the time they have left.

    A lease in `kept` is still in KV, so by the server's clock it has not expired. Return the leases whose workers may
    never have received the order.
    """
    leases, tasks = {lease.id: lease for lease in await queries.active_leases()}, await _live(queries)
    # No await from here on: no timer and no request sees half of the tasks.
    untold = set[str]()
    for task in tasks:
        lease = leases.pop(task.lease_id or "", None)
        by_server = lease is not None and lease.id in kept
        live_tasks.load(state_of(task), lease, _remaining(lease, by_server=by_server), by_server=by_server)
        if lease is not None and task.status is TaskStatus.LEASED:
            untold.add(lease.id)
        if lease is None and task.status in machine.HELD:
            before = live_tasks.get(task.id)
            live_tasks.change(before, machine.expire(before), AuditNote("expired", "coordinator", "it had no lease"))
    for lease in leases.values():
        live_tasks.end_orphan(lease)
    live_tasks.open()
    return untold


async def reread(live_tasks: LiveTasks, queries: Queries, task_id: str) -> None:
    """Replace one task by what the database has. The caller holds the task's lock."""
    believed = live_tasks.forget(task_id)
    try:
        task = await queries.task(task_id)
    except NotFoundError:
        task = None
    if task is not None and task.status in machine.LIVE:
        leases = [lease for lease in await queries.active_leases() if lease.id == task.lease_id]
        lease = leases[0] if leases else None
        earlier = await queries.earlier(task_id, machine.LIVE)
        live_tasks.reload(state_of(task), lease, _remaining(lease, by_server=False), earlier)
    elif believed is not None:
        live_tasks.remove(believed)


async def _live(queries: Queries) -> list[Task]:
    tasks, after, more = list[Task](), 0, True
    while more:
        found = await queries.live([*machine.LIVE], after=after, limit=PAGE)
        tasks += [task for _, task in found]
        after, more = found[-1][0] if found else after, len(found) == PAGE
    return tasks


def _remaining(lease: Lease | None, *, by_server: bool) -> float:
    """Return the seconds that a lease has left at most: by the wall clock, or all of them if KV has it."""
    if lease is None or by_server:
        return float(lease.ttl_seconds) if lease is not None else 0.0
    left = clock.parse(lease.expires_at).timestamp() - clock.now().timestamp()
    return min(float(lease.ttl_seconds), max(0.0, left))
