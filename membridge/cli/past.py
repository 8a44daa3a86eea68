"""`membridge history` and `tag`: the snapshots that are kept, and names for them."""

import click

from membridge.cli import units
from membridge.cli.command import Invocation, command
from schemas import subjects
from schemas.commits import MOST_RECORDS, HistoryReply, HistoryRequest, RowChanges, Tag, TagAct, TagAction, TagsReply
from schemas.snapshot import SnapshotRecord
from schemas.subjects import Impact

HISTORY_COLUMNS = ("seq>", "when", "~node", "size>", "rows>", "change>", "~tags")
TAG_COLUMNS = ("tag", "seq>", "set", "by")


@command("history", impact=Impact.READ)
@click.option(
    "--limit", type=click.IntRange(1, MOST_RECORDS), default=20, show_default=True, help="How many snapshots."
)
@click.option("--before", type=click.IntRange(1), metavar="SEQ", help="Only snapshots older than SEQ.")
def history(invocation: Invocation, limit: int, before: int | None) -> None:
    """List committed snapshots, newest first."""
    from membridge.cli.asking import ask  # noqa: PLC0415 - the bus is loaded only where it is used

    invocation.show(ask(invocation, subjects.HISTORY, HistoryRequest(limit=limit, before=before)), print_history)


@command("tag", impact=Impact.WRITE)
@click.argument("name", required=False)
@click.argument("state", metavar="[SEQ]", default="head")
@click.option("--move", is_flag=True, help="Take the name from another snapshot.")
@click.option("--delete", is_flag=True, help="Delete the tag; its snapshot may go with time.")
@click.option("--list", "listing", is_flag=True, help="List tags, as without a name.")
def tag(invocation: Invocation, name: str | None, state: str, move: bool, delete: bool, listing: bool) -> None:  # noqa: FBT001 - click's flags
    """Name the newest snapshot, or that of SEQ, so that it is kept for ever."""
    from membridge.cli.asking import ask  # noqa: PLC0415 - the bus is loaded only where it is used

    if listing or name is None:
        if delete or move:
            raise click.UsageError("name the tag.")
        action = TagAction(action=TagAct.LIST)
    else:
        action = TagAction(action=TagAct.DELETE if delete else TagAct.SET, name=name, state=state, move=move)
    invocation.show(ask(invocation, subjects.TAG, action), lambda reply: print_tags(reply, action))


def print_history(reply: HistoryReply) -> None:
    """Print a line for each commit."""
    from membridge.cli import tables  # noqa: PLC0415 - rich is loaded only where people read

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
    from membridge.cli import tables  # noqa: PLC0415 - rich is loaded only where people read

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
