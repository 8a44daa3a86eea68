"""The steps of a push or pull as they happen: for a person's progress bar, a job's record and the log."""

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

from schemas.node import JobStep

#: Told the step's name, how much of it is done and how much there is (0 while unknown).
Listener = Callable[[str, int, int], None]


def unheard(step: str, done: int, total: int) -> None:
    """Listen to nothing."""
    del step, done, total


class ProgressTracker:
    """Collects the steps of one job and tells a listener where it is. May be told from another thread."""

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
        """Say how far the current step is."""
        self._listener(self._current, done, total)
