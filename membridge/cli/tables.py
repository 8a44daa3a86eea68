"""Tables and facts: as wide as the terminal, and as wide as their content where there is none.

The only module that prints with rich, which it loads when it prints.
"""

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from membridge.cli import units
from membridge.system import clock

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

_COLOURS = {
    "ok": "green", "done": "green", "primary": "green",
    "warn": "yellow", "skipped": "yellow", "running": "yellow", "abandoned": "yellow",
    "fail": "red", "failed": "red",
}  # fmt: skip


#: Columns where output is not a terminal: nothing is cut or folded for a program or a file.
UNLIMITED = 1 << 20
#: Columns that a text which may be cut needs at least.
READABLE = 20


def console() -> "Console":
    """Return the console on standard output."""
    from rich.console import Console  # noqa: PLC0415 - loaded when something is printed

    width = None if sys.stdout.isatty() else UNLIMITED
    return Console(highlight=False, soft_wrap=False, emoji=False, markup=False, width=width)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, empty: str) -> None:
    """Print `rows` under `columns`, or the line `empty` when there are none.

    A column whose name ends in `>` holds numbers. When room is short one that starts with `?` is left out, one that
    starts with `*` folds its text and one that starts with `~` cuts it.
    """
    from rich.box import SIMPLE_HEAD  # noqa: PLC0415 - as above
    from rich.table import Table  # noqa: PLC0415 - as above

    lines = [list(row) for row in rows]
    if not lines:
        line(empty)
        return
    printer = console()
    shown = _fitting(columns, lines, printer.width)
    columns, lines = [columns[at] for at in shown], [[cells[at] for at in shown] for cells in lines]
    drawn = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False, header_style="bold")
    for name in columns:
        drawn.add_column(
            name.strip("?*~>"),
            justify="right" if name.endswith(">") else "left",
            no_wrap=name[:1] not in ("*", "~"),
            overflow="fold" if name.startswith("*") else "ellipsis",
        )
    for cells in lines:
        drawn.add_row(*(_cell(text, cut=name.startswith("~")) for name, text in zip(columns, cells, strict=True)))
    printer.print(drawn)


def _fitting(columns: Sequence[str], lines: Sequence[Sequence[str]], width: int) -> list[int]:
    """Return the places of the columns to print: those that may be left out go, the last first, until all fit."""
    needs = [max(len(name.strip("?*~>")), *(len(cells[at]) for cells in lines)) + 1 for at, name in enumerate(columns)]
    needs = [min(need, READABLE) if name[:1] in ("*", "~") else need for need, name in zip(needs, columns, strict=True)]
    shown = list(range(len(columns)))
    for at in reversed(range(len(columns))):
        if columns[at].startswith("?") and sum(needs[one] for one in shown) > width:
            shown.remove(at)
    return shown


def facts(pairs: Iterable[tuple[str, str]]) -> None:
    """Print names and values in two columns; a pair without value is left out."""
    from rich.table import Table  # noqa: PLC0415 - as above

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


def happened(at: str) -> str:
    """Return when `at` was, for a list: how long ago on a terminal, which is narrow; the time itself for a program."""
    return ago(at) if sys.stdout.isatty() else when(at)


def when(at: str) -> str:
    """Return when `at` was; see `units.when`."""
    return units.when(at)


def short(path: str) -> str:
    """Return `path` with the home folder as `~`."""
    home = str(Path.home())
    return f"~{path.removeprefix(home)}" if path.startswith(f"{home}/") else path


def _cell(text: str, *, cut: bool = False) -> "Text":
    from rich.text import Text  # noqa: PLC0415 - as above

    return Text(
        units.printable(text),
        style=_COLOURS.get(text.lower(), ""),
        no_wrap=cut or None,
        overflow="ellipsis" if cut else None,
    )
