"""Events of a task, as its stream keeps them."""

from enum import StrEnum
from typing import Annotated

from msgspec import Meta
from msgspec.structs import replace

from schemas.fields import MANY, MOST_WHOLE, Instant, Line, Named, Number, Text, Uuid, Whole
from schemas.tasks import TaskStatus
from schemas.wire import Wire, WireError, decode


class TaskEventKind(StrEnum):
    """Kind of an event: a change of status, a step of the worker, a line of the program."""

    STATUS = "status"
    PROGRESS = "progress"
    STDERR = "stderr"


class TaskStep(Wire, frozen=True, kw_only=True):
    """A status that a task passed through."""

    status: TaskStatus | None
    at: Instant
    text: Text = ""
    attempt: Number = 0


class TaskEvent(Wire, frozen=True, kw_only=True):
    """An event of a task. `seq` is its place in the stream, 0 in an event that is pushed.

    `passed` is what happened to the task in the same transaction before it had this status, oldest first.
    """

    task_id: Uuid
    kind: TaskEventKind
    at: Instant
    text: Text
    status: TaskStatus | None = None
    attempt: Number = 0
    seq: Whole = 0
    passed: Annotated[list[TaskStep], Meta(max_length=1_024)] = []

    def steps(self) -> "list[TaskEvent]":
        """Return this event as single ones: what the task passed through, then this one."""
        return [
            *(replace(self, status=step.status, at=step.at, text=step.text, attempt=step.attempt, passed=[])
              for step in self.passed),
            replace(self, passed=[]) if self.passed else self,
        ]  # fmt: skip


def decode_task_event(body: bytes) -> TaskEvent | None:
    """Return the event in `body`, None when this version does not know it."""
    try:
        return decode(body, TaskEvent)
    except WireError:
        return None


class EventsRequest(Wire, frozen=True, kw_only=True):
    """Whose events to list, oldest first; `start` is where an earlier page ended."""

    id: Named
    start: Annotated[int, Meta(ge=1, le=MOST_WHOLE)] = 1


class EventsReply(Wire, frozen=True, kw_only=True):
    """Events, oldest first; `next_start` begins the next page, None after the last.

    `resume` is where to continue later. The stream keeps nothing before `first`. A stream with another `life` was
    recreated and counts from one again.
    """

    events: Annotated[list[TaskEvent], MANY] = []
    next_start: Whole | None = None
    resume: Annotated[int, Meta(ge=1, le=MOST_WHOLE)] = 1
    first: Whole = 0
    life: Line = ""
