"""`membridge diff`: which memories came, went and changed between two states."""

import click

from membridge.cli import units
from membridge.cli.command import Invocation, command
from schemas import subjects
from schemas.commits import MOST_ROWS, DiffReply, DiffRequest, RowChange, RowDiff, TableDiff
from schemas.subjects import Impact

TABLE_COLUMNS = ("table", "came>", "went>", "changed>")
ROW_COLUMNS = ("", "table", "~row")
_SIGNS = {RowChange.CAME: "+", RowChange.WENT: "-", RowChange.CHANGED: "~", RowChange.KEPT: "="}


@command("diff", impact=Impact.READ)
@click.argument("older")
@click.argument("newer", default="head")
@click.option(
    "--limit", type=click.IntRange(0, MOST_ROWS), default=50, show_default=True, help="How many rows to list."
)
def diff(invocation: Invocation, older: str, newer: str, limit: int) -> None:
    """Show which memories came, went and changed between the states OLDER and NEWER.

    A state is a seq, a tag, `head`, `@` and a time as `@2026-01-31T18:00`, or 0 for no memory at all.
    """
    older, newer = _state(older), _state(newer)
    from membridge.cli.asking import ask  # noqa: PLC0415 - the bus is loaded only where it is used

    invocation.show(ask(invocation, subjects.DIFF, DiffRequest(older=older, newer=newer, limit=limit)), print_diff)


def _state(text: str) -> str:
    """Return the name of a state; a time without a zone is local."""
    if not text.startswith("@"):
        return text
    try:
        return units.given_as_state(text[1:])
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is not a time: write it as @2026-01-31T18:00.") from error


def print_diff(reply: DiffReply) -> None:
    """Print how many rows differ, and the rows."""
    from membridge.cli import tables  # noqa: PLC0415 - rich is loaded only where people read

    print_tables(reply.tables, empty=f"snapshots {reply.older_seq} and {reply.newer_seq} hold the same memory")
    if reply.rows:
        tables.line("")
        tables.table(ROW_COLUMNS, map(_row, reply.rows), empty="")
    if not reply.listed_all:
        left = sum(one.came + one.went + one.changed for one in reply.tables) - len(reply.rows)
        tables.line(f"\nand {units.count(left, 'row')} more; `--limit` shows more of them")


def print_tables(found: list[TableDiff], *, empty: str) -> None:
    """Print a line for each table that differs."""
    from membridge.cli import tables  # noqa: PLC0415 - rich is loaded only where people read

    def row(one: TableDiff) -> tuple[str, ...]:
        return (one.table, *(f"{number:,}" if number else "" for number in (one.came, one.went, one.changed)))

    tables.table(TABLE_COLUMNS, map(row, found), empty=empty)


def described(one: RowDiff) -> str:
    """Return the first words of a row, and the columns of it that changed."""
    changed = f" ({', '.join(one.columns)})" if one.columns else ""
    return f"{one.title}{changed}"


def _row(one: RowDiff) -> tuple[str, ...]:
    return (_SIGNS[one.change], one.table, described(one))
