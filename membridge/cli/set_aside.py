"""`membridge conflicts` and `quarantine`: what a merge set aside, and what to do about it."""

import click

from membridge.cli import requests, tables
from membridge.cli.command import DefaultGroup, Invocation, command
from schemas import subjects
from schemas.node import Empty
from schemas.proposal import Conflict, ConflictSide, ConflictsReply, QuarantineAction, Quarantined, QuarantineReply
from schemas.subjects import Impact

CONFLICT_COLUMNS = ("id>", "when", "table", "~row", "kept", "lost")


@command("conflicts", impact=Impact.READ)
def conflicts(invocation: Invocation) -> None:
    """List rows that two machines changed differently.

    Shows which version stayed and which one is kept in this machine's journal alone.
    """
    invocation.show(requests.ask(invocation, subjects.CONFLICTS, Empty()), print_conflicts)


def print_conflicts(reply: ConflictsReply) -> None:
    """Print a line for each conflict."""

    def row(conflict: Conflict) -> tuple[str, ...]:
        key = " ".join(", ".join(map(str, conflict.key)).split())
        sides = (_side(conflict.kept), _side(conflict.lost))
        return (str(conflict.id), tables.when(conflict.at), conflict.table, key, *sides)

    tables.table(CONFLICT_COLUMNS, map(row, reply.conflicts), empty="no conflict so far")
    if reply.conflicts:
        tables.line("`membridge conflicts --json` shows both versions of each row.")


def _side(side: ConflictSide) -> str:
    return side.origin if side.row is not None else f"{side.origin} (deleted)"


QUARANTINE_COLUMNS = ("id", "when", "kind", "tries>", "*what", "*reason")


@command("list", impact=Impact.READ)
def list_items(invocation: Invocation) -> None:
    """List what could not be merged, and why."""
    _act(invocation, QuarantineAction(action="list"), empty="the quarantine is empty")


@command("retry", impact=Impact.WRITE)
@click.argument("item", metavar="ID")
def retry(invocation: Invocation, item: str) -> None:
    """Try again to merge the item ID."""
    _act(invocation, QuarantineAction(action="retry", id=item), empty=f"{item} was merged")


@command("drop", impact=Impact.WRITE)
@click.argument("item", metavar="ID")
def drop(invocation: Invocation, item: str) -> None:
    """Delete the item ID for good."""
    _act(invocation, QuarantineAction(action="drop", id=item), empty=f"{item} was dropped")


quarantine = DefaultGroup(
    "quarantine",
    default="list",
    commands=[list_items, retry, drop],
    summary="List, retry or drop what could not be merged.",
)


def _act(invocation: Invocation, action: QuarantineAction, *, empty: str) -> None:
    invocation.show(requests.ask(invocation, subjects.QUARANTINE, action), lambda reply: _print_items(reply, empty))


def _print_items(reply: QuarantineReply, empty: str) -> None:
    def row(item: Quarantined) -> tuple[str, ...]:
        return (item.id, tables.when(item.created_at), item.kind, str(item.attempts), item.subject, item.reason)

    tables.table(QUARANTINE_COLUMNS, map(row, reply.items), empty=empty)
