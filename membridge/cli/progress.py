"""Progress of long work: a bar on a terminal, plain lines elsewhere, nothing with `--json`.

A meter is called as `meter(step, done, total)`, `total` 0 while unknown, and returns at once. Jobs shorter than a
second report no progress; the node decides that.
"""

import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeAlias

import click

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

Meter: TypeAlias = Callable[[str, int, int], None]

#: Plain lines of one step come no faster than this, in seconds.
LINE_EVERY = 5.0


@contextmanager
def shown(title: str, *, quiet: bool) -> Generator[Meter]:
    """Give a meter for the time of the context."""
    if quiet:
        yield _silent
    elif sys.stderr.isatty():
        bar = Bar(title)
        try:
            yield bar
        finally:
            bar.close()
    else:
        yield Lines(title)


class Bar:
    """A bar on the terminal; rich is loaded when it first shows."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    def __call__(self, step: str, done: int, total: int) -> None:
        if self._progress is None:
            self._progress = _bar()
            self._progress.start()
        if self._task is None:
            self._task = self._progress.add_task("", total=None)
        self._progress.update(self._task, description=f"{self._title}: {step}", completed=done, total=total or None)

    def close(self) -> None:
        """Take the bar away."""
        if self._progress is not None:
            self._progress.stop()


class Lines:
    """A line for each step, and for long ones a line every few seconds."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._next = 0.0
        self._step: str = ""

    def __call__(self, step: str, done: int, total: int) -> None:
        now = time.monotonic()
        if step == self._step and now < self._next:
            return
        share = f" {100 * done // total} %" if total else ""
        click.echo(f"{self._title}: {step}{share}", err=True)
        self._step, self._next = step, now + LINE_EVERY


def _silent(_step: str, _done: int, _total: int) -> None:
    return


def _bar() -> "Progress":
    from rich.console import Console  # noqa: PLC0415 - rich only where a bar is drawn
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn  # noqa: PLC0415 - as above

    columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), TaskProgressColumn(), TimeElapsedColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True)
