"""Tasks: what to run and where each one stands.

Field names are the contract with front ends and stay. Instants are ISO 8601 in UTC; durations say their unit.
"""

from enum import StrEnum
from typing import Annotated

from msgspec import Meta

from schemas.errors import ErrorReply
from schemas.fields import MANY, FreeName, Instant, Labels, Limit, Named, Number, Reason, Slug, Uuid, Whole
from schemas.wire import Wire

#: Largest prompt in characters; the coordinator's own bound, in bytes, is a setting.
Prompt = Annotated[str, Meta(min_length=1, max_length=8_388_608)]
Hint = Annotated[str, Meta(min_length=1, max_length=1_024)]


class OutputFormat(StrEnum):
    """Required format of a task's output."""

    JSON = "json"
    TEXT = "text"


class TaskStatus(StrEnum):
    """State of a task. `failed` waits for its next attempt; `completed` and `dead` are final."""

    QUEUED = "queued"
    LEASED = "leased"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    DEAD = "dead"


class Policy(Wire, frozen=True, kw_only=True):
    """Bounds of one attempt: its seconds, and the tokens of its context, 0 for the worker's bound."""

    timeout_sec: Annotated[int, Meta(ge=1, le=3_600)] = 120
    budget: Number = 0


class Work(Wire, frozen=True, kw_only=True):
    """What to do, apart from the context."""

    agent_slug: FreeName
    prompt: Prompt
    context_hints: Annotated[list[Hint], Meta(max_length=64)] = []
    policy: Policy = Policy()
    desired_format: OutputFormat = OutputFormat.TEXT
    max_attempts: Annotated[int, Meta(ge=1, le=10)] = 3
    #: Larger runs sooner.
    priority: Annotated[int, Meta(ge=0, le=9)] = 5
    not_before: Instant | None = None
    idempotency_key: Annotated[str, Meta(min_length=1, max_length=128)] | None = None
    labels: Labels = []


class TaskSpec(Work, frozen=True, kw_only=True):
    """A task to submit. Submitting again with the same `idempotency_key` returns the first task.

    Tasks of one context run in order and continue one session; without `context_id` a task has a context of its own.
    """

    context_id: FreeName | None = None


class Task(Work, frozen=True, kw_only=True):
    """A task as it is now. `reason` says why it waits, failed or ended; `interruptions` do not count as attempts."""

    id: Uuid
    context_id: FreeName
    status: TaskStatus
    created_at: Instant
    updated_at: Instant
    lease_id: Uuid | None = None
    worker_id: Slug | None = None
    attempts: Number = 0
    interruptions: Number = 0
    reason: Reason = ""


class TaskRequest(Wire, frozen=True, kw_only=True):
    """Names a task."""

    id: Named
    reason: Annotated[str, Meta(max_length=512)] = ""


#: Tasks that one request reads or submits at most, and characters of a prompt that such a request may have.
MOST_TOGETHER, SHORT = 64, 16_384


class ReadTasksRequest(Wire, frozen=True, kw_only=True):
    """Names tasks."""

    ids: Annotated[list[Named], Meta(max_length=MOST_TOGETHER)]


class ReadTasksReply(Wire, frozen=True, kw_only=True):
    """Those of the tasks that exist and whose prompt is short; any other is read by itself."""

    tasks: Annotated[list[Task], Meta(max_length=MOST_TOGETHER)]


class SubmitTasksRequest(Wire, frozen=True, kw_only=True):
    """Tasks to submit, each by itself: one may be refused and the others not."""

    tasks: Annotated[list[TaskSpec], Meta(max_length=MOST_TOGETHER)]


class SubmitOutcome(Wire, frozen=True, kw_only=True):
    """A task that was submitted, or why it was not."""

    task: Task | None = None
    error: ErrorReply | None = None


class SubmitTasksReply(Wire, frozen=True, kw_only=True):
    """What came of each task, in the order of the request."""

    tasks: Annotated[list[SubmitOutcome], Meta(max_length=MOST_TOGETHER)]


class TaskFilter(Wire, frozen=True, kw_only=True):
    """Which tasks: of a status, context, agent or worker, that have each word of `q` in id, names, prompt or reason."""

    q: Annotated[str, Meta(max_length=512)] = ""
    status: TaskStatus | None = None
    context_id: FreeName | None = None
    agent_slug: FreeName | None = None
    worker_id: Slug | None = None


class TaskOrder(StrEnum):
    """By what tasks are sorted; those that are equal, by when they were submitted."""

    CREATED = "created"
    UPDATED = "updated"
    STATUS = "status"
    AGENT = "agent"
    WORKER = "worker"
    ATTEMPTS = "attempts"
    PRIORITY = "priority"


class TasksRequest(TaskFilter, frozen=True, kw_only=True):
    """Which tasks to list: the newest first, or in another order. `before` is the id with which the last page ended.

    `count` asks for the number of all tasks of the filter too.
    """

    limit: Limit = 100
    before: Named | None = None
    count: bool = False
    order: TaskOrder = TaskOrder.CREATED
    ascending: bool = False


class TasksReply(Wire, frozen=True, kw_only=True):
    """Tasks in the order that was asked for, their prompts cut to 200 characters."""

    tasks: Annotated[list[Task], MANY] = []
    more: bool = False
    total: Whole | None = None
