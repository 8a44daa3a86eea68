"""What `apply` asks the shell to do: rows to write, answers, messages, timers.

Rows are written first, in one transaction with those of other events. The rest follows once that is durable, in the
order given here. A crash in between loses only the rest, and the next tenure makes up for it from the rows.
"""

from typing import TYPE_CHECKING

import msgspec

from schemas.leases import Lease, LeaseClaim
from schemas.results import Artifact, Result
from schemas.task_events import TaskEvent
from schemas.tasks import Task
from schemas.wire import Wire
from services.coordinator.engine.machine import TaskState

if TYPE_CHECKING:
    from services.coordinator.engine.events import Event


class NewTask(msgspec.Struct, frozen=True, gc=False):
    """Insert a task. What changed of it in the same transaction follows as `TaskChanged`."""

    task: Task
    state: TaskState


class TaskChanged(msgspec.Struct, frozen=True, gc=False):
    """Update a task."""

    task: TaskState
    at: str


class NewLease(msgspec.Struct, frozen=True, gc=False):
    """Insert a lease."""

    lease: Lease


class LeaseChanged(msgspec.Struct, frozen=True, gc=False):
    """Update a lease."""

    lease: Lease


class NewResult(msgspec.Struct, frozen=True, gc=False):
    """Insert the result of an attempt; `session` is the CLI's, for the next task of the context."""

    result: Result
    lease_id: str
    session: str | None


class NewArtifact(msgspec.Struct, frozen=True, gc=False):
    """Insert an artifact; `object_key` is where its content is when the row has none."""

    artifact: Artifact
    object_key: str | None


class NewWorker(msgspec.Struct, frozen=True, gc=False):
    """Insert a worker that was seen for the first time."""

    worker_id: str
    at: str


class WorkerDrained(msgspec.Struct, frozen=True, gc=False):
    """Update whether an operator drains a worker."""

    worker_id: str
    drained: bool


class WorkerRemoved(msgspec.Struct, frozen=True, gc=False):
    """Delete a worker."""

    worker_id: str


class Noted(msgspec.Struct, frozen=True, gc=False):
    """Insert an audit record."""

    action: str
    entity_type: str
    entity_id: str
    actor: str
    detail: str
    at: str


class Reply(msgspec.Struct, frozen=True, gc=False):
    """Answer the event."""

    value: Wire


class ReplyTask(msgspec.Struct, frozen=True, gc=False):
    """Answer the event with a task as the database has it then."""

    task_id: str


class ReplyOrder(msgspec.Struct, frozen=True, gc=False):
    """Answer the event with an order: the whole task and its lease."""

    task: TaskState
    lease: Lease


class Tell(msgspec.Struct, frozen=True, gc=False):
    """Publish an event of a task."""

    event: TaskEvent


class Send(msgspec.Struct, frozen=True, gc=False):
    """Send an order to a worker; its answer comes back as `Taken` or `NotTaken`."""

    task: TaskState
    lease: Lease
    session: str | None


class Stop(msgspec.Struct, frozen=True, gc=False):
    """Ask a worker to stop a task; if it does not answer, its heartbeats are refused."""

    claim: LeaseClaim


class Hold(msgspec.Struct, frozen=True, gc=False):
    """Write a lease to KV, new or renewed."""

    lease: Lease


class Release(msgspec.Struct, frozen=True, gc=False):
    """Delete a lease from KV."""

    lease: Lease


class Arm(msgspec.Struct, frozen=True, gc=False):
    """Apply `event` at `at`, in seconds of the loop's clock; replaces the timer of the same name."""

    name: str
    at: float
    event: "Event"


class Disarm(msgspec.Struct, frozen=True, gc=False):
    """Cancel a timer; no error if it has fired."""

    name: str


Row = (
    NewTask | TaskChanged | NewLease | LeaseChanged | NewResult | NewArtifact
    | NewWorker | WorkerDrained | WorkerRemoved | Noted
)  # fmt: skip
Effect = Row | Reply | ReplyTask | ReplyOrder | Tell | Send | Stop | Hold | Release | Arm | Disarm
