"""`membridge history`, `tag` and `diff`: the snapshots that are kept, names for them, and how two differ."""

import click

from membridge.cli import requests, tables, units
from membridge.cli.command import Invocation, command
from schemas import subjects
from schemas.commits import (
    MOST_RECORDS,
    MOST_ROWS,
    DiffReply,
    DiffRequest,
    HistoryReply,
    HistoryRequest,
    RowChange,
    RowChanges,
    RowDiff,
    TableDiff,
    Tag,
    TagAct,
    TagAction,
    TagsReply,
)
from schemas.snapshot import SnapshotRecord
from schemas.subjects import Impact

HISTORY_COLUMNS = ("seq>", "when", "~node", "size>", "rows>", "change>", "~tags")
TAG_COLUMNS = ("tag", "seq>", "set", "by")


@command("history", impact=Impact.READ)
@click.option(
    "--limit",
    type=click.IntRange(1, MOST_RECORDS),
    default=20,
    show_default=True,
    metavar="N",
    help="How many snapshots.",
)
@click.option("--before", type=click.IntRange(1), metavar="SEQ", help="Only snapshots older than SEQ.")
def history(invocation: Invocation, limit: int, before: int | None) -> None:
    """List snapshots, newest first."""
    invocation.show(
        requests.ask(invocation, subjects.HISTORY, HistoryRequest(limit=limit, before=before)), print_history
    )


@command("tag", impact=Impact.WRITE)
@click.argument("name", required=False)
@click.argument("state", metavar="[SEQ]", default="head")
@click.option("--move", is_flag=True, help="Move the tag from another snapshot.")
@click.option("--delete", is_flag=True, help="Delete the tag; its snapshot may expire then.")
@click.option("--list", "listing", is_flag=True, help="List the tags, as without NAME.")
def tag(invocation: Invocation, name: str | None, state: str, move: bool, delete: bool, listing: bool) -> None:  # noqa: FBT001 - click's flags
    """Name a snapshot, which is then kept for ever.

    SEQ is its number, by default that of the newest.
    """
    if listing or name is None:
        if delete or move:
            raise click.UsageError("NAME is missing.")
        action = TagAction(action=TagAct.LIST)
    else:
        action = TagAction(action=TagAct.DELETE if delete else TagAct.SET, name=name, state=state, move=move)
    invocation.show(requests.ask(invocation, subjects.TAG, action), lambda reply: print_tags(reply, action))


def print_history(reply: HistoryReply) -> None:
    """Print a line for each commit."""
    changes = {change.seq: change for change in reply.changes}

    def row(record: SnapshotRecord) -> tuple[str, ...]:
        size = units.size(record.object.size_bytes) if record.object else ""
        names = ", ".join(tag.name for tag in reply.tags if tag.seq == record.seq)
        rows, change = f"{sum(record.rows.values()):,}", describe_change(changes.get(record.seq))
        when = units.when(record.created_at, exact=True)
        return (str(record.seq), when, record.node, size, rows, change, names)

    tables.table(HISTORY_COLUMNS, map(row, reply.records), empty="no snapshot yet: `membridge push` makes the first")


def print_tags(reply: TagsReply, action: TagAction) -> None:
    """Print the tags, or what was done to one."""

    def row(tag: Tag) -> tuple[str, ...]:
        return (tag.name, str(tag.seq), tables.when(tag.created_at), tag.node)

    if action.action is TagAct.LIST:
        tables.table(TAG_COLUMNS, map(row, reply.tags), empty="no tag yet: `membridge tag NAME` names the head")
        return
    for one in reply.tags:
        done = "deleted; it named" if action.action is TagAct.DELETE else "names"
        tables.line(f"tag {one.name} {done} snapshot {one.seq}")


def describe_change(change: RowChanges | None) -> str:
    """Return by how much tables grew and shrank: `+12 -3`; nothing where it is not known or nothing did."""
    if change is None:
        return ""
    came = sum(number for number in change.tables.values() if number > 0)
    went = sum(-number for number in change.tables.values() if number < 0)
    return " ".join([f"+{came:,}"] * (came > 0) + [f"-{went:,}"] * (went > 0))


TABLE_COLUMNS = ("table", "came>", "went>", "changed>")
ROW_COLUMNS = ("", "table", "~row")
_SIGNS = {RowChange.CAME: "+", RowChange.WENT: "-", RowChange.CHANGED: "~", RowChange.KEPT: "="}


@command("diff", impact=Impact.READ)
@click.argument("older")
@click.argument("newer", default="head")
@click.option(
    "--limit",
    type=click.IntRange(0, MOST_ROWS),
    default=50,
    show_default=True,
    metavar="N",
    help="How many rows to list.",
)
def diff(invocation: Invocation, older: str, newer: str, limit: int) -> None:
    """Show which rows differ between the states OLDER and NEWER.

    A state is a snapshot's number, a tag, `head`, a time as `@2026-01-31T18:00`, or 0 for an empty memory.
    """
    older, newer = _state(older), _state(newer)
    invocation.show(
        requests.ask(invocation, subjects.DIFF, DiffRequest(older=older, newer=newer, limit=limit)), print_diff
    )


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
    print_tables(reply.tables, empty=f"snapshots {reply.older_seq} and {reply.newer_seq} hold the same memory")
    if reply.rows:
        tables.line("")
        tables.table(ROW_COLUMNS, map(_row, reply.rows), empty="")
    if not reply.listed_all:
        left = sum(one.came + one.went + one.changed for one in reply.tables) - len(reply.rows)
        tables.line(f"\nand {units.count(left, 'row')} more; `--limit` shows more of them")


def print_tables(found: list[TableDiff], *, empty: str) -> None:
    """Print a line for each table that differs."""

    def row(one: TableDiff) -> tuple[str, ...]:
        return (one.table, *(f"{number:,}" if number else "" for number in (one.came, one.went, one.changed)))

    tables.table(TABLE_COLUMNS, map(row, found), empty=empty)


def described(one: RowDiff) -> str:
    """Return the first words of a row, and the columns of it that changed."""
    changed = f" ({', '.join(one.columns)})" if one.columns else ""
    return f"{one.title}{changed}"


def _row(one: RowDiff) -> tuple[str, ...]:
    return (_SIGNS[one.change], one.table, described(one))
