"""Progress of a job, step by step: for a progress bar, the job's record and the log."""

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

from schemas.node import JobStep

#: Called with the step's name, how much of it is done, and the total (0 while unknown).
Listener = Callable[[str, int, int], None]


def unheard(step: str, done: int, total: int) -> None:
    """Listen to nothing."""
    del step, done, total


class ProgressTracker:
    """Times the steps of one job and reports them to a listener. Safe to call from another thread."""

    def __init__(self, listener: Listener = unheard) -> None:
        self._listener = listener
        self._current = ""
        self.done: list[JobStep] = []

    @contextmanager
    def step(self, name: str) -> Generator[None]:
        """Time the body as the step `name`."""
        outer, self._current = self._current, name
        began = time.monotonic()
        self._listener(name, 0, 0)
        try:
            yield
        finally:
            self.done.append(JobStep(name=name, seconds=round(time.monotonic() - began, 4)))
            self._current = outer

    def advance(self, done: int, total: int) -> None:
        """Report how far the current step is."""
        self._listener(self._current, done, total)
