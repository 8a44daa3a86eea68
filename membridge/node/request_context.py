"""Who asked for an operation, and until when an answer is of use."""

from dataclasses import dataclass

from membridge.aio.deadline import Deadline
from membridge.commits.progress import Listener


@dataclass(frozen=True, slots=True)
class RequestContext:
    """Who asked, until when an answer is of use, and who wants to hear of progress."""

    by: str
    deadline: Deadline
    listener: Listener | None = None
