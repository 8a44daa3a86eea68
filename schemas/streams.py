"""Every JetStream stream: its subjects, what bounds it, and how it forgets.

Nothing publishes to a stream that is not declared here; each has a bound in bytes and, where it keeps history, in age.
"""

from dataclasses import dataclass
from enum import StrEnum

from schemas import subjects


class Retention(StrEnum):
    """How a stream forgets: by its limits, or by acknowledgement."""

    LIMITS = "limits"
    WORK_QUEUE = "workqueue"


@dataclass(frozen=True, slots=True)
class Stream:
    """A stream. `max_age` in seconds; `per_subject` is how many messages one subject keeps, None without bound.

    A stream that is not `acked` does not confirm messages to publishers: in an account shared by parties that do not
    trust each other, a publisher could direct the confirmation to a subject of another one.
    """

    name: str
    subjects: tuple[str, ...]
    retention: Retention
    max_bytes: int
    max_age: float
    per_subject: int | None = None
    acked: bool = True


DAY = 86_400.0

EVENTS = Stream("EVENTS", (subjects.wildcard(subjects.EVENT),), Retention.LIMITS, max_bytes=32 << 20, max_age=30 * DAY)
PROPOSALS = Stream(
    "PROPOSALS", (subjects.wildcard(subjects.PROPOSAL),), Retention.WORK_QUEUE, max_bytes=32 << 20, max_age=90 * DAY
)
JOBS = Stream(
    "JOBS", (subjects.wildcard(subjects.JOB),), Retention.LIMITS, max_bytes=32 << 20, max_age=30 * DAY, per_subject=1
)
TASKS = Stream(
    "TASKS",
    (subjects.wildcard(subjects.TASK_EVENT),),
    Retention.LIMITS,
    max_bytes=64 << 20,
    max_age=7 * DAY,
    acked=False,
)

ALL: tuple[Stream, ...] = (EVENTS, PROPOSALS, JOBS)
#: Those of the task runtime; its coordinator makes them.
RUNTIME: tuple[Stream, ...] = (TASKS,)

WEB_AUDIT = Stream(
    "WEB_AUDIT", (subjects.wildcard(subjects.WEB_AUDIT),), Retention.LIMITS, max_bytes=32 << 20, max_age=365 * DAY
)
#: Those of the services that answer HTTP, which share them.
WEB: tuple[Stream, ...] = (WEB_AUDIT,)
