"""What can happen to the task runtime. Everything that a decision needs and that is not in the state comes along.

Fields of type `Known…` are what the database has; UNSET until the shell has read it.
"""

from collections.abc import Mapping

import msgspec
from msgspec import UNSET, UnsetType

from schemas.leases import Lease, LeaseClaim, LeaseRequest, Report
from schemas.results import Artifact
from schemas.tasks import Task, TaskStatus
from schemas.workers import Registration, Worker
from services.coordinator.engine.machine import TaskState
from services.coordinator.engine.state import Recorded

#: The task of an idempotency key, None when it has none.
KnownKey = str | UnsetType | None
#: A task that is not live, None when there is none.
KnownTask = TaskState | UnsetType | None


class UnreadError(Exception):
    """The event needs what the database has after the batch before it: it is to be applied again in the next one."""


class Now(msgspec.Struct, frozen=True, gc=False):
    """The instant of an event: seconds of the loop's clock, seconds of the wall clock, and that as a stamp."""

    loop: float
    wall: float
    stamp: str


class Loaded(msgspec.Struct, frozen=True, kw_only=True):
    """A tenure begins: live tasks by `seq`, active leases, the ids of leases in KV, workers, last results by context.

    `last` has a worker and its session for each result, oldest first; `seq` is the largest one given.
    """

    tasks: list[TaskState]
    leases: list[Lease]
    kept: frozenset[str]
    workers: Mapping[str, Recorded]
    last: list[tuple[str, str, str | None]]
    seq: int


class Submitted(msgspec.Struct, frozen=True, kw_only=True):
    """A client submits a task."""

    task: Task
    not_before: float
    actor: str
    known: KnownKey = UNSET


class Cancelled(msgspec.Struct, frozen=True, kw_only=True):
    """A client ends a task."""

    task_id: str
    reason: str
    actor: str
    known: KnownTask = UNSET


class Requeued(msgspec.Struct, frozen=True, kw_only=True):
    """A client revives a task."""

    task_id: str
    actor: str
    known: KnownTask = UNSET


class Renewed(msgspec.Struct, frozen=True):
    """A worker renews its lease."""

    claim: LeaseClaim


class Reported(msgspec.Struct, frozen=True, kw_only=True):
    """A worker reports the end of an attempt. `chance` in [0, 1) spreads the next attempt.

    `artifact` is the output of a success; `object_key` is where its content is when it has none.
    """

    report: Report
    result_id: str
    chance: float = 0.0
    artifact: Artifact | None = None
    object_key: str | None = None


class HandedBack(msgspec.Struct, frozen=True):
    """A worker returns a task because it stops."""

    claim: LeaseClaim


class Taken(msgspec.Struct, frozen=True):
    """A worker accepted an order."""

    claim: LeaseClaim


class NotTaken(msgspec.Struct, frozen=True):
    """A worker rejected an order, or its answer is lost."""

    claim: LeaseClaim
    why: str
    #: The worker may have accepted it.
    unknown: bool = False


class Unreadable(msgspec.Struct, frozen=True):
    """The task of an order could not be read from the database."""

    claim: LeaseClaim
    why: str


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A worker that is not a node asks for a task."""

    request: LeaseRequest
    lease_id: str
    #: Whether a lease with this id ever existed; the status of the task that the request names.
    used: bool | UnsetType = UNSET
    status: TaskStatus | UnsetType | None = UNSET


class Introduced(msgspec.Struct, frozen=True):
    """A worker that is not a node says that it will ask for tasks."""

    registration: Registration


class Heard(msgspec.Struct, frozen=True):
    """A node published the presence of its worker."""

    worker: Worker


class Silent(msgspec.Struct, frozen=True):
    """These workers said goodbye, or sent no presence for a while."""

    worker_ids: tuple[str, ...]


class Believed(msgspec.Struct, frozen=True, kw_only=True):
    """A worker that started again said which tasks it runs. `given` are its leases when it was asked."""

    worker_id: str
    running: frozenset[str]
    given: frozenset[str]


class Drained(msgspec.Struct, frozen=True, kw_only=True):
    """An operator drains a worker, or resumes it."""

    worker_id: str
    drained: bool
    actor: str


class Removed(msgspec.Struct, frozen=True, kw_only=True):
    """An operator removes a worker."""

    worker_id: str
    actor: str


class Due(msgspec.Struct, frozen=True):
    """The wait of a task is over."""

    task_id: str


class Expired(msgspec.Struct, frozen=True):
    """The time of a lease is over."""

    lease_id: str


class Lapsed(msgspec.Struct, frozen=True):
    """The entry of a lease in KV expired."""

    lease_id: str


class Compared(msgspec.Struct, frozen=True):
    """The leases that KV has, for comparison."""

    kept: frozenset[str]


class Stirred(msgspec.Struct, frozen=True):
    """A task that waited for its worker waits no longer."""


Event = (
    Loaded | Submitted | Cancelled | Requeued | Renewed | Reported | HandedBack | Taken | NotTaken | Unreadable
    | Asked | Introduced | Heard | Silent | Believed | Drained | Removed | Due | Expired | Lapsed | Compared | Stirred
)  # fmt: skip
