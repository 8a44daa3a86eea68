"""`membridge push` and `pull`, and the names that the old tool had for their bold forms."""

import click
import msgspec

from membridge.cli import units
from membridge.cli.command import Invocation, command
from schemas import subjects
from schemas.snapshot import PullOutcome, PullReply, PullRequest, PushOutcome, PushReply, PushRequest
from schemas.subjects import Impact

ON_NODE = click.option(
    "--node",
    metavar="NODE",
    help="Have the daemon of NODE do it. Works on the server's machine, or where the server has no keys.",
)


@command("push", impact=Impact.WRITE)
@click.option("--snapshot", is_flag=True, help="Commit a snapshot, from a secondary too if that is allowed.")
@click.option("--allow-shrink", is_flag=True, help="Commit even when many rows are gone.")
@click.option("--force", is_flag=True, help="Push even while another push holds the lock.")
@ON_NODE
def push(invocation: Invocation, snapshot: bool, allow_shrink: bool, force: bool, node: str | None) -> None:  # noqa: FBT001 - click's flags
    """Send this machine's memory to the others.

    A primary commits a snapshot; a secondary proposes its new rows to the primary.
    """
    _push(invocation, PushRequest(snapshot=snapshot, allow_shrink=allow_shrink, force=force), node)


@command("push_sqlite", impact=Impact.WRITE)
@click.option("--allow-shrink", is_flag=True, help="Commit even when many rows are gone.")
@click.option("--force", is_flag=True, help="Push even while another push holds the lock.")
def push_sqlite(invocation: Invocation, allow_shrink: bool, force: bool) -> None:  # noqa: FBT001 - click's flags
    """Commit a snapshot: the old tool's name of `push --snapshot`."""
    _push(invocation, PushRequest(snapshot=True, allow_shrink=allow_shrink, force=force))


@command("pull", impact=Impact.WRITE)
@click.option("--replace", is_flag=True, help="Replace the database, after a backup, instead of merging.")
@ON_NODE
def pull(invocation: Invocation, replace: bool, node: str | None) -> None:  # noqa: FBT001 - click's flag
    """Take in what the other machines know.

    Rows are merged into the running database; rows that only this machine has stay and are proposed.
    """
    _pull(invocation, PullRequest(replace=replace), node)


@command("pull_sqlite", impact=Impact.WRITE)
def pull_sqlite(invocation: Invocation) -> None:
    """Replace the database by the newest snapshot: the old tool's name of `pull --replace`."""
    _pull(invocation, PullRequest(replace=True))


def describe_push(reply: PushReply) -> str:
    """Return what a push did, as a sentence."""
    sent = f"{units.size(reply.uploaded_bytes)} in {units.duration(reply.seconds)}"
    if reply.outcome is PushOutcome.COMMITTED:
        kind = f"{reply.kind}, " if reply.kind else ""
        return f"committed snapshot {reply.seq} ({kind}{units.count(reply.rows, 'row')}, {sent})"
    if reply.outcome is PushOutcome.PROPOSED:
        return f"proposed {units.count(reply.rows, 'row')} to the primary ({sent})"
    if reply.outcome is PushOutcome.DRY_RUN:
        return f"dry run: {units.count(reply.rows, 'row')} would be sent, nothing was"
    held = "every row is shared or proposed already" if reply.seq is None else f"snapshot {reply.seq} has every row"
    return f"nothing to push: {held}"


def describe_pull(reply: PullReply) -> str:
    """Return what a pull did, as a sentence or two."""
    rows = ", ".join(
        f"{number:,} {word}"
        for number, word in ((reply.inserted, "inserted"), (reply.updated, "updated"), (reply.deleted, "deleted"))
        if number
    )
    fetched = f"{units.size(reply.downloaded_bytes)} in {units.duration(reply.seconds)}"
    sentence = {
        PullOutcome.MERGED: f"merged snapshot {reply.seq}: {rows or 'no rows changed'} ({fetched})",
        PullOutcome.INSTALLED: f"installed snapshot {reply.seq} as the database ({fetched})",
        PullOutcome.REPLACED: f"replaced the database by snapshot {reply.seq} ({fetched})",
        PullOutcome.UNCHANGED: f"nothing to pull: snapshot {reply.seq} is here already",
        PullOutcome.TOOK_PROPOSALS: f"took in {units.count(reply.proposals, 'proposal')}: {rows or 'no rows changed'}",
        PullOutcome.DRY_RUN: f"dry run of snapshot {reply.seq}: nothing was written",
    }[reply.outcome]
    after = [sentence]
    if reply.conflicts:
        after.append(f"{units.count(reply.conflicts, 'conflict')}: see `membridge conflicts`")
    if reply.unsynced:
        after.append(f"{units.count(reply.unsynced, 'row')} of this machine not yet in the shared memory")
    if reply.backup:
        after.append(f"backup: {reply.backup}")
    if reply.set_aside:
        after.append(f"the damaged database is kept as {reply.set_aside}")
    return "\n".join(after)


def _push(invocation: Invocation, request: PushRequest, node: str | None = None) -> None:
    from membridge.cli.asking import ask, ask_node  # noqa: PLC0415 - the bus is loaded only where it is used

    # The overrides of who runs the command, not of the daemon, which may have been started long ago.
    settings = invocation.settings
    request = msgspec.structs.replace(
        request,
        force=request.force or settings.lane.force_push,
        allow_secondary=settings.leadership.allow_secondary_push,
    )
    reply = ask_node(invocation, subjects.PUSH, request, node) if node else ask(invocation, subjects.PUSH, request)
    invocation.show(reply, lambda reply: click.echo(describe_push(reply)))


def _pull(invocation: Invocation, request: PullRequest, node: str | None = None) -> None:
    from membridge.cli.asking import ask, ask_node  # noqa: PLC0415 - the bus is loaded only where it is used

    request = PullRequest(
        replace=request.replace, allow_primary=invocation.settings.leadership.allow_primary_pull_override
    )
    reply = ask_node(invocation, subjects.PULL, request, node) if node else ask(invocation, subjects.PULL, request)
    invocation.show(reply, lambda reply: click.echo(describe_pull(reply)))
