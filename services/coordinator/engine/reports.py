"""What workers say under their leases, and what ends a lease without a word: expiries and differences with KV.

A report counts under the active lease only; a late or repeated one is rejected and changes nothing.
"""

from msgspec.structs import replace

from membridge.errors import InvalidRequestError
from membridge.system import clock
from schemas.leases import Accepted, LeaseClaim, LeaseStatus
from schemas.results import Result, ResultStatus
from schemas.workers import WorkerStatus
from services.coordinator.engine import machine, workers
from services.coordinator.engine.effects import Hold, LeaseChanged, NewArtifact, NewResult, Reply, Stop
from services.coordinator.engine.events import (
    Compared,
    Due,
    Expired,
    HandedBack,
    Lapsed,
    NotTaken,
    Now,
    Renewed,
    Reported,
    Taken,
    Unreadable,
)
from services.coordinator.engine.machine import LEASED, TaskState
from services.coordinator.engine.state import Tie, waits
from services.coordinator.engine.step import ITSELF, Step, claimed, expiry

#: Characters of an error that become the task's reason, and those of them that the audit keeps; its result has all.
REASON, DETAIL = 4_000, 500
#: Characters of the reason why a worker rejected an order.
WHY = 500
#: Seconds for which a context prefers the worker that ran it last, and contexts whose workers are kept in memory.
STICKY_SECONDS, CONTEXTS = 3_600.0, 100_000
#: Seconds between two comparisons with KV: a younger lease may be missing there.
ROUND = 15.0

_YES = Reply(Accepted(accepted=True))


def renewed(step: Step, event: Renewed) -> None:
    """Renew a lease for its full time to live. Raises LeaseLostError."""
    _, held = claimed(step.state, event.claim)
    lease = replace(
        held.lease,
        last_heartbeat=step.now.stamp,
        expires_at=clock.stamp(step.now.wall + held.lease.ttl_seconds),
    )
    fresh = replace(held, lease=lease, until=step.now.loop + lease.ttl_seconds, by_server=False)
    step.state.put(step.state.leases, lease.id, fresh)
    workers.speak(step, lease.worker_id)
    step.effects += (LeaseChanged(lease), expiry(fresh), Hold(lease), Reply(lease))


def reported(step: Step, event: Reported) -> None:
    """Accept the result of an attempt. Errors: LeaseLostError, InvalidRequestError with the field."""
    report, now = event.report, step.now
    before, _ = claimed(step.state, report)
    success = report.status is ResultStatus.SUCCESS
    if success and event.artifact is None:
        raise InvalidRequestError("a success needs an output", field="output")
    if not success and not report.error_message:
        raise InvalidRequestError("an error needs a message", field="error_message")
    if event.artifact is not None:
        step.emit(NewArtifact(event.artifact, event.object_key))
    step.emit(NewResult(_result(event, now), report.lease_id, report.session))
    if success:
        step.change(before, machine.complete(before), "completed", report.worker_id)
    else:
        message = (report.error_message or "").strip()
        after = machine.fail(before, reason=message[:REASON], now=now.wall, chance=event.chance)
        step.change(before, after, "failed", report.worker_id, message[:DETAIL], lease=LeaseStatus.FAILED)
    stick(step, before.context_id, report.worker_id, report.session)
    step.emit(_YES)


def stick(step: Step, context_id: str, worker_id: str, session: str | None) -> None:
    """Prefer this worker for the next task of the context."""
    ties = step.state.ties
    known = ties.get(context_id)
    if session is None and known is not None and known.worker_id == worker_id:
        session = known.session
    step.state.put(ties, context_id, Tie(step.state.next("turn"), worker_id, session, step.now.loop + STICKY_SECONDS))
    ties.move_to_end(context_id)
    if len(ties) > CONTEXTS:
        step.state.drop(ties, next(iter(ties)))


def handed_back(step: Step, event: HandedBack) -> None:
    """Queue a task again that its worker returns because it stops. Raises LeaseLostError."""
    claim = event.claim
    before, _ = claimed(step.state, claim)
    reason = claim.reason or "handed back"
    step.hand_back(before, claim.worker_id, reason)
    # It is stopping: no more tasks until its next presence message.
    workers.lose(step, claim.worker_id, WorkerStatus.SYNCING, reason)
    step.emit(_YES)


def taken(step: Step, event: Taken) -> None:
    """Note that a worker runs its task; stop it when the lease has ended meanwhile."""
    claim = event.claim
    if claim.lease_id not in step.state.leases:
        # A stop that overtook the order found nothing to stop.
        step.emit(Stop(claim))
    elif (before := _leased(step, claim)) is not None:
        step.change(before, machine.start(before), "started", claim.worker_id)


def not_taken(step: Step, event: NotTaken) -> None:
    """Take a task back that its worker rejected."""
    claim = event.claim
    # No more tasks for it until its next presence message.
    workers.lose(step, claim.worker_id, WorkerStatus.UNKNOWN, event.why[:WHY])
    _take_back(step, claim, f"{claim.worker_id} did not take it: {event.why}")
    if event.unknown and claim.lease_id not in step.state.leases:
        step.emit(Stop(claim))


def unreadable(step: Step, event: Unreadable) -> None:
    """Take a task back that could not be sent: the first time at once, then after a growing pause."""
    held = step.state.tasks.get(event.claim.task_id)
    often = held.interruptions if held is not None else 0
    until = step.now.wall + machine.backoff(often, 0.0) if often else 0.0
    _take_back(step, event.claim, f"it could not be read: {event.why}", until)


def due(step: Step, event: Due) -> None:
    """Let a task run whose wait is over."""
    before = step.state.tasks.get(event.task_id)
    if before is not None and waits(before):
        step.change(before, machine.fall_due(before), "queued", ITSELF, "its wait is over")


def expired(step: Step, event: Expired) -> None:
    """End a lease whose time is over; one that has time left, because it was renewed meanwhile, keeps its timer."""
    held = step.state.leases.get(event.lease_id)
    if held is None:
        return
    if held.until <= step.now.loop:
        step.expire(step.state.tasks[held.lease.task_id])
    else:
        # Loops round: a timer may fire a moment before its instant, and would never fire again.
        step.emit(expiry(held))


def lapsed(step: Step, event: Lapsed) -> None:
    """End a lease whose entry in KV expired, unless this tenure renewed it: then its timer decides."""
    held = step.state.leases.get(event.lease_id)
    if held is not None and held.by_server:
        step.expire(step.state.tasks[held.lease.task_id])


def compared(step: Step, event: Compared) -> None:
    """Make KV agree: end what expired there, and write what is missing and older than a round."""
    missing = [held for lease_id, held in step.state.leases.items() if lease_id not in event.kept]
    for held in missing:
        if held.by_server:
            step.expire(step.state.tasks[held.lease.task_id])
        elif step.now.wall - clock.parse(held.lease.started_at).timestamp() > ROUND:
            step.emit(Hold(held.lease))


def _take_back(step: Step, claim: LeaseClaim, why: str, until: float = 0.0) -> None:
    before = _leased(step, claim)
    if before is not None:
        step.hand_back(before, claim.worker_id, why[:WHY], until)


def _leased(step: Step, claim: LeaseClaim) -> TaskState | None:
    """Return the task while it is leased under this lease and has not started; None otherwise."""
    task = step.state.tasks.get(claim.task_id)
    given = task is not None and task.status is LEASED and task.lease_id == claim.lease_id
    return task if given else None


def _result(event: Reported, now: Now) -> Result:
    report, artifact = event.report, event.artifact
    return Result(
        id=event.result_id,
        task_id=report.task_id,
        worker_id=report.worker_id,
        artifact_id=artifact.id if artifact else None,
        status=report.status,
        output=artifact.content if artifact else report.output,
        error_message=report.error_message,
        metrics=report.metrics,
        completed_at=now.stamp,
    )
