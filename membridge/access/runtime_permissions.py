"""What each kind of user may say and hear in the account of the task runtime, made from the catalogue in `schemas`.

Pure. All machines share this account, of whatever project. So only coordinators may store or read anything in its
streams: whoever may do both can have the server write to subjects of others. Members ask, work, and speak for
themselves.
"""

from membridge.access.permissions import ANSWERS, DISCOVERY, INBOX, OBJECTS, Permissions
from schemas import buckets, subjects
from schemas.identity import NodeId
from schemas.subjects import Impact
from schemas.task_events import TaskEventKind

#: What a worker tells of a task that it runs.
TOLD = (TaskEventKind.PROGRESS, TaskEventKind.STDERR)
_EVENTS = subjects.wildcard(subjects.TASK_EVENT)


def node(name: NodeId) -> Permissions:
    """Return what a member may do: what people at it ask of the runtime, and what its worker says of itself."""
    worker = {"worker": name}
    return Permissions(
        publish=(
            *_asked(*Impact),
            *(operation.at(**worker) for operation in subjects.REPORTING_OPERATIONS),
            subjects.fill(subjects.WORKER_PRESENCE, **worker),
            *(subjects.TASK_EVENT.format(task="*", kind=kind.value, by=name) for kind in TOLD),
            "$JS.API.INFO",
            ANSWERS,
        ),
        subscribe=(
            f"{INBOX}.{name}.>",
            *(operation.at(**worker) for operation in subjects.WORKER_OPERATIONS),
            subjects.ROLL_CALL,
            _EVENTS,
            *DISCOVERY,
        ),
    )


def reader(name: str) -> Permissions:
    """Return what a front end may do that only looks."""
    return Permissions((*_asked(Impact.READ), "$JS.API.INFO"), (f"{INBOX}.{name}.>", _EVENTS))


def gateway(name: str) -> Permissions:
    """Return what the gateway may do: what people make through it, and hand out requests too large for one message."""
    # It speaks for workers that are no nodes and reach it over HTTP; a lease's id is what they have to know.
    spoken = (operation.pattern() for operation in subjects.REPORTING_OPERATIONS)
    return Permissions((*_asked(*Impact), *spoken, "$JS.API.INFO", ANSWERS), (f"{INBOX}.{name}.>", _EVENTS))


def coordinator(name: str = subjects.COORDINATOR) -> Permissions:
    """Return what coordinators may do: answer, give orders, and keep what they know."""
    passed_on = subjects.wildcard(subjects.SCHEDULER)
    kept = [f"$KV.{bucket.name}.>" for bucket in buckets.RUNTIME]
    return Permissions(
        publish=(
            ANSWERS,
            passed_on,
            subjects.ROLL_CALL,
            *(operation.pattern() for operation in subjects.WORKER_OPERATIONS),
            subjects.TASK_EVENT.format(task="*", kind=TaskEventKind.STATUS.value, by=subjects.COORDINATOR),
            *kept,
            f"$O.{OBJECTS}.C.*",
            f"$O.{OBJECTS}.M.*",
            "$JS.API.INFO",
            "$JS.API.STREAM.INFO.*",
            "$JS.API.DIRECT.GET.>",
            # To hear what expires.
            f"$JS.API.CONSUMER.CREATE.KV_{buckets.LEASES.name}.*.$KV.{buckets.LEASES.name}.>",
            f"$JS.API.CONSUMER.INFO.KV_{buckets.LEASES.name}.*",
        ),
        subscribe=(
            f"{INBOX}.{name}.>",
            *(operation.pattern() for operation in subjects.RUNTIME_OPERATIONS),
            passed_on,
            subjects.wildcard(subjects.WORKER_PRESENCE),
            *kept,
            *DISCOVERY,
        ),
    )


def _asked(*impacts: Impact) -> tuple[str, ...]:
    return tuple(one.at() for one in subjects.CLIENT_OPERATIONS if one.impact in impacts)
