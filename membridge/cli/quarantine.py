"""`membridge quarantine`: what could not be taken in and waits for a decision."""

import click

from membridge.cli.command import DefaultGroup, Invocation, command
from schemas import subjects
from schemas.proposal import QuarantineAction, Quarantined, QuarantineReply
from schemas.subjects import Impact

COLUMNS = ("id", "when", "kind", "tries>", "*what", "*reason")


@command("list", impact=Impact.READ)
def list_items(invocation: Invocation) -> None:
    """List what is in quarantine."""
    _act(invocation, QuarantineAction(action="list"), empty="nothing is in quarantine")


@command("retry", impact=Impact.WRITE)
@click.argument("item", metavar="ID")
def retry(invocation: Invocation, item: str) -> None:
    """Try again to take in the item ID."""
    _act(invocation, QuarantineAction(action="retry", id=item), empty=f"{item} was taken in")


@command("drop", impact=Impact.WRITE)
@click.argument("item", metavar="ID")
def drop(invocation: Invocation, item: str) -> None:
    """Give up the item ID for good."""
    _act(invocation, QuarantineAction(action="drop", id=item), empty=f"{item} was dropped")


quarantine = DefaultGroup(
    "quarantine",
    default="list",
    commands=[list_items, retry, drop],
    summary="List, retry or drop what could not be taken in.",
)


def _act(invocation: Invocation, action: QuarantineAction, *, empty: str) -> None:
    from membridge.cli.asking import ask  # noqa: PLC0415 - the bus is loaded only where it is used

    invocation.show(ask(invocation, subjects.QUARANTINE, action), lambda reply: _print(reply, empty))


def _print(reply: QuarantineReply, empty: str) -> None:
    from membridge.cli import tables  # noqa: PLC0415 - rich is loaded only where people read

    def row(item: Quarantined) -> tuple[str, ...]:
        return (item.id, tables.when(item.created_at), item.kind, str(item.attempts), item.subject, item.reason)

    tables.table(COLUMNS, map(row, reply.items), empty=empty)
