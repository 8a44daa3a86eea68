"""Which worker gets a task, and why: capability, health, stickiness, load.

Pure. A context stays with the worker that ran it last while that one's load is at most twice the best candidate's, and
waits for it for a while when it is full; every decision says what it was and why.
"""

from collections.abc import Collection
from enum import StrEnum

import msgspec

#: Seconds that a task waits for the worker that ran its context last.
PATIENCE = 10.0
#: How many times the best candidate's load the sticky worker may have.
SOFT = 2.0


class Candidate(msgspec.Struct, frozen=True):
    """A worker as routing sees it.

    `declines` is why it gets no task now, empty when it may; `heard` is when its last presence came, in seconds of any
    one clock.
    """

    id: str
    declines: str
    claude_cli: bool
    labels: frozenset[str]
    active: int
    max_concurrency: int
    heard: float

    @property
    def load(self) -> float:
        """How full it would be with one more task."""
        return (self.active + 1) / self.max_concurrency

    @property
    def is_full(self) -> bool:
        """Whether it has as many tasks as it may run."""
        return self.active >= self.max_concurrency


class Stick(StrEnum):
    """What became of a context's tie to a worker."""

    INITIALIZE = "initialize"
    RETAIN = "retain"
    SWITCH = "switch"
    WAIT = "wait"


class Decision(msgspec.Struct, frozen=True):
    """The worker to take, None to wait; `retry_after` in seconds when waiting ends by itself."""

    worker: str | None
    stick: Stick
    why: str
    retry_after: float | None = None


def eligible(labels: Collection[str], worker: Candidate) -> str:
    """Return in words why the worker may not run a task with `labels`; an empty text when it may."""
    if worker.declines:
        return worker.declines
    if not worker.claude_cli:
        return "has no claude program"
    missing = sorted(set(labels) - worker.labels)
    return f"lacks {', '.join(missing)}" if missing else ""


def route(labels: Collection[str], workers: Collection[Candidate], *, sticky: str | None, waited: float) -> Decision:
    """Decide on a task with `labels`, whose context was last on `sticky`, and that has been ready for `waited` s."""
    able = [worker for worker in workers if not eligible(labels, worker)]
    free = [worker for worker in able if not worker.is_full]
    if not able:
        return Decision(None, Stick.WAIT, unable(labels, workers))
    best = min(free, key=_preference, default=None)
    known = next((worker for worker in able if worker.id == sticky), None)
    if known is None:
        stick, why = (Stick.SWITCH, f"{sticky} is not eligible now") if sticky else (Stick.INITIALIZE, "fewest tasks")
        return _to(best, stick, why)
    if known.is_full and waited < PATIENCE:
        return Decision(None, Stick.WAIT, f"waiting for {sticky}, which knows this context", PATIENCE - waited)
    if known.is_full:
        return _to(best, Stick.SWITCH, f"{sticky} stayed full for {PATIENCE:.0f} s")
    if best is not None and known.load > SOFT * best.load:
        return _to(best, Stick.SWITCH, f"{sticky} has more than twice the load")
    return Decision(known.id, Stick.RETAIN, "it knows this context")


def unable(labels: Collection[str], workers: Collection[Candidate]) -> str:
    """Return in words why no worker may run the task."""
    if not workers:
        return "no eligible worker because there is none"
    reasons = [f"{worker.id} {eligible(labels, worker)}" for worker in sorted(workers, key=lambda one: one.id)]
    shown = "; ".join(reasons[:5]) + (f"; and {len(reasons) - 5} more" if len(reasons) > 5 else "")
    return f"no eligible worker because {shown}"


def _to(best: Candidate | None, stick: Stick, why: str) -> Decision:
    if best is None:
        return Decision(None, Stick.WAIT, "all eligible workers are full")
    return Decision(best.id, stick, why)


def _preference(worker: Candidate) -> tuple[int, float, str]:
    return worker.active, -worker.heard, worker.id
