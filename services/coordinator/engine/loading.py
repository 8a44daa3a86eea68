"""A tenure begins: the state from what the database and KV have."""

from msgspec.structs import replace

from membridge.system import clock
from schemas.leases import Lease, LeaseStatus
from services.coordinator.engine import reports
from services.coordinator.engine.effects import LeaseChanged
from services.coordinator.engine.events import Loaded, Now
from services.coordinator.engine.machine import HELD, LEASED
from services.coordinator.engine.state import Held
from services.coordinator.engine.step import Step


def loaded(step: Step, event: Loaded) -> None:
    """Load everything.

    A lease that KV still has has not expired by the server's clock; its entry decides when it does. A task that a
    worker should hold without a lease is taken back, and a lease that no task has is ended.
    """
    state, now = step.state, step.now
    state.put(state.counters, "seq", event.seq)
    for name, recorded in event.workers.items():
        state.put(state.recorded, name, recorded)
    for context, worker, session in event.last:
        reports.stick(step, context, worker, session)
    leases = {lease.id: lease for lease in event.leases}
    # The leases first: what a worker holds has the turn of its context.
    for task in event.tasks:
        if task.status in HELD and (lease := leases.pop(task.lease_id or "", None)) is not None:
            kept = lease.id in event.kept
            until = now.loop + (float(lease.ttl_seconds) if kept else _left(lease, now))
            step.watch(Held(lease=lease, until=until, by_server=kept, unconfirmed=task.status is LEASED))
    for task in event.tasks:
        state.insert(task)
        state.put(state.tasks, task.id, task)
    for task in event.tasks:
        if task.status in HELD and (task.lease_id or "") not in state.leases:
            step.expire(task, "it had no lease")
        elif task.status not in HELD:
            step.await_turn(task)
    for lease in leases.values():
        step.emit(LeaseChanged(replace(lease, status=LeaseStatus.EXPIRED, last_heartbeat=now.stamp)))


def _left(lease: Lease, now: Now) -> float:
    """Return the seconds that a lease has left by the wall clock, its whole time to live at most."""
    left = clock.parse(lease.expires_at).timestamp() - now.wall
    return min(float(lease.ttl_seconds), max(0.0, left))
