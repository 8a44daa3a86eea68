"""One change of many tasks: those of a list at once, those of a filter also as a job until its end."""

from enum import StrEnum
from typing import Annotated

from msgspec import Meta

from schemas.fields import MANY, Instant, Line, Named, Uuid, Whole
from schemas.tasks import Task, TaskFilter
from schemas.wire import Wire

#: Tasks that one request changes at most, and those of them that its answer shows.
MOST_CHANGED, SHOWN = 10_000, 100
Why = Annotated[str, Meta(max_length=512)]


class TaskChange(StrEnum):
    """What happens to many tasks at once."""

    CANCEL = "cancel"
    REQUEUE = "requeue"


class TaskJobState(StrEnum):
    """State of a task job. `stopped` by a person; `done` when each of its tasks was tried."""

    RUNNING = "running"
    DONE = "done"
    STOPPED = "stopped"


class TaskJob(Wire, frozen=True, kw_only=True):
    """A change of all tasks of a filter; a coordinator works on it until its end, a later one goes on.

    It goes from `through`, the newest task, to the oldest; `cursor` is the last that it tried. `outcomes` counts what
    came of each: `changed`, or the code of its error.
    """

    id: Uuid
    change: TaskChange
    filter: TaskFilter
    through: Named
    reason: Why = ""
    state: TaskJobState = TaskJobState.RUNNING
    total: Whole
    tried: Whole = 0
    outcomes: Annotated[dict[Line, Whole], MANY] = {}
    cursor: Named | None = None
    requested_by: Line = ""
    started_at: Instant
    updated_at: Instant
    ended_at: Instant | None = None
    #: The tenure of the coordinator that wrote this.
    epoch: Whole = 0


class ChangeTasksRequest(Wire, frozen=True, kw_only=True):
    """Cancel or requeue tasks: those of `ids`, or all of a filter; without `apply` only say which.

    A filter takes the tasks that its change is possible for, up to `through`: a task that was submitted after the
    preview is not among them. `as_job` answers at once with a job that changes all of a filter, however many; a list
    is changed before the answer.
    """

    change: TaskChange
    ids: Annotated[list[Named], Meta(max_length=MOST_CHANGED)] = []
    filter: TaskFilter | None = None
    through: Named | None = None
    apply: bool = False
    as_job: bool = False
    reason: Why = ""


class ChangeTasksReply(Wire, frozen=True, kw_only=True):
    """How many tasks of each status are changed, or would be, and the first hundred of them.

    `outcomes` counts what came of each: `changed`, or the code of its error; `left` were not tried, by the bound or for
    lack of time. `through` is the newest of them. A `job` has its own outcomes.
    """

    applied: bool = False
    counts: Annotated[dict[Line, Whole], MANY] = {}
    tasks: Annotated[list[Task], MANY] = []
    through: Named | None = None
    outcomes: Annotated[dict[Line, Whole], MANY] = {}
    left: Whole = 0
    job: TaskJob | None = None


class TaskJobRequest(Wire, frozen=True, kw_only=True):
    """Names a task job."""

    id: Named


class TaskJobsReply(Wire, frozen=True, kw_only=True):
    """Task jobs, newest first; those that ended are kept for a week."""

    jobs: Annotated[list[TaskJob], MANY] = []
