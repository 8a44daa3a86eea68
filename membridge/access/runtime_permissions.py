"""What each kind of user may publish and subscribe to in the task runtime's account, from the catalogue in `schemas`.

Pure. All machines, of whatever project, share this account with the services. Only a service may store or read anything
in a stream: a user that may do both can have the server write to subjects of others. Members send the services'
`operations`, run tasks, and report under their own name.
"""

from collections.abc import Iterable

from membridge.access.permissions import ARTIFACTS
from membridge.wiring.nats_permissions import ANSWERS, DISCOVERY, INBOX, Permissions
from membridge.wiring.service import Service
from schemas import subjects
from schemas.identity import NodeId
from schemas.subjects import Impact, Operation
from schemas.task_events import TaskEventKind
from schemas.wire import Wire

#: What a worker publishes about a task that it runs.
TOLD = (TaskEventKind.PROGRESS, TaskEventKind.STDERR)
_EVENTS = subjects.wildcard(subjects.TASK_EVENT)


def node(name: NodeId, operations: Iterable[Operation[Wire, Wire]]) -> Permissions:
    """Return what a member may do: send requests of its users, and report as its worker."""
    worker = {"worker": name}
    return Permissions(
        publish=(
            *_asked(operations, *Impact),
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


def reader(name: str, operations: Iterable[Operation[Wire, Wire]]) -> Permissions:
    """Return what a read-only front end may do."""
    return Permissions((*_asked(operations, Impact.READ), "$JS.API.INFO"), (f"{INBOX}.{name}.>", _EVENTS))


def gateway(name: str, operations: Iterable[Operation[Wire, Wire]]) -> Permissions:
    """Return what the gateway may do: send its users' requests, also those too large for one message."""
    # It reports for workers that reach it over HTTP; they prove themselves by the lease's id.
    spoken = (operation.pattern() for operation in subjects.REPORTING_OPERATIONS)
    return Permissions((*_asked(operations, *Impact), *spoken, "$JS.API.INFO", ANSWERS), (f"{INBOX}.{name}.>", _EVENTS))


def service(one: Service) -> Permissions:
    """Return what a service may do: answer, use its own streams and buckets, and what else it declares."""
    kept = [f"$KV.{bucket.name}.>" for bucket in one.all_buckets]
    owned = [*(stream.name for stream in one.all_streams), *(f"KV_{bucket.name}" for bucket in one.all_buckets)]
    audited = () if one.web is None else (subjects.wildcard(subjects.WEB_AUDIT),)
    objects = (f"$O.{ARTIFACTS}.C.*", f"$O.{ARTIFACTS}.M.*") if one.objects else ()
    if one.objects:
        owned.append(f"OBJ_{ARTIFACTS}")
    return Permissions(
        publish=(
            ANSWERS,
            *one.permissions.publish,
            *audited,
            *kept,
            *objects,
            "$JS.API.INFO",
            *(f"$JS.API.STREAM.INFO.{stream}" for stream in owned),
            *(f"$JS.API.DIRECT.GET.{stream}{rest}" for stream in owned for rest in ("", ".>")),
        ),
        subscribe=(
            f"{INBOX}.{one.name}.>",
            *(operation.pattern() for operation in one.operations),
            *one.permissions.subscribe,
            *kept,
            *DISCOVERY,
        ),
    )


def _asked(operations: Iterable[Operation[Wire, Wire]], *impacts: Impact) -> tuple[str, ...]:
    return tuple(one.pattern() for one in operations if one.impact in impacts)
