"""Tables and facts: on a terminal as wide as that, 80 columns or more, elsewhere as wide as what they hold.

The only module that prints with rich.

Importing it loads rich: command modules import it inside the function that prints.
"""

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from membridge.cli import units
from membridge.system import clock

_COLOURS = {
    "ok": "green", "done": "green", "primary": "green",
    "warn": "yellow", "skipped": "yellow", "running": "yellow", "abandoned": "yellow",
    "fail": "red", "failed": "red",
}  # fmt: skip


#: Columns of what is no terminal: nothing is cut or folded for a program or a file.
UNLIMITED = 1 << 20


def console() -> Console:
    """Return the console on standard output."""
    width = None if sys.stdout.isatty() else UNLIMITED
    return Console(highlight=False, soft_wrap=False, emoji=False, markup=False, width=width)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, empty: str) -> None:
    """Print `rows` under `columns`, or the line `empty` when there are none.

    A column whose name ends in `>` holds numbers. When room is short one that starts with `*` folds its text and one
    that starts with `~` cuts it.
    """
    lines = [list(row) for row in rows]
    if not lines:
        line(empty)
        return
    drawn = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False, header_style="bold")
    for name in columns:
        drawn.add_column(
            name.strip("*~>"),
            justify="right" if name.endswith(">") else "left",
            no_wrap=name[:1] not in ("*", "~"),
            overflow="fold" if name.startswith("*") else "ellipsis",
        )
    for cells in lines:
        drawn.add_row(*(_cell(text, cut=name.startswith("~")) for name, text in zip(columns, cells, strict=True)))
    console().print(drawn)


def facts(pairs: Iterable[tuple[str, str]]) -> None:
    """Print names and values in two columns; a pair without value is left out."""
    drawn = Table.grid(padding=(0, 2))
    drawn.add_column(no_wrap=True, style="bold")
    drawn.add_column(overflow="fold")
    for name, value in pairs:
        if value:
            drawn.add_row(name, _cell(value))
    console().print(drawn)


def line(text: str) -> None:
    """Print one paragraph."""
    console().print(units.printable(text))


def ago(at: str) -> str:
    """Return how long ago the instant `at` was."""
    return units.ago(at, clock.now())


def when(at: str) -> str:
    """Return when `at` was; see `units.when`."""
    return units.when(at)


def short(path: str) -> str:
    """Return `path` with the home folder as `~`."""
    home = str(Path.home())
    return f"~{path.removeprefix(home)}" if path.startswith(f"{home}/") else path


def _cell(text: str, *, cut: bool = False) -> Text:
    return Text(
        units.printable(text),
        style=_COLOURS.get(text.lower(), ""),
        no_wrap=cut or None,
        overflow="ellipsis" if cut else None,
    )
