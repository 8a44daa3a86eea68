"""`membridge push` and `pull`, and the old tool's names for `push --snapshot` and `pull --replace`."""

from pathlib import Path

import click
import msgspec

from membridge.cli import requests, units
from membridge.cli.command import ON_NODE, Invocation, command
from schemas import subjects
from schemas.snapshot import PullOutcome, PullReply, PullRequest, PushOutcome, PushReply, PushRequest
from schemas.subjects import Impact


@command("push", impact=Impact.WRITE)
@click.option("--snapshot", is_flag=True, help="Commit a snapshot, also from a secondary if ALLOW_SECONDARY_PUSH=1.")
@click.option("--allow-shrink", is_flag=True, help="Commit even if many rows were deleted.")
@click.option("--force", is_flag=True, help="Take the push lock over from another push.")
@ON_NODE
def push(invocation: Invocation, snapshot: bool, allow_shrink: bool, force: bool, node: str | None) -> None:  # noqa: FBT001 - click's flags
    """Send this machine's memory to the other machines.

    A primary commits a snapshot; a secondary proposes its new rows to the primary.
    """
    _push(invocation, PushRequest(snapshot=snapshot, allow_shrink=allow_shrink, force=force), node)


@command("push_sqlite", impact=Impact.WRITE)
@click.option("--allow-shrink", is_flag=True, help="Commit even if many rows were deleted.")
@click.option("--force", is_flag=True, help="Take the push lock over from another push.")
def push_sqlite(invocation: Invocation, allow_shrink: bool, force: bool) -> None:  # noqa: FBT001 - click's flags
    """Commit a snapshot: the old tool's name for `push --snapshot`."""
    _push(invocation, PushRequest(snapshot=True, allow_shrink=allow_shrink, force=force))


@command("pull", impact=Impact.WRITE)
@click.option("--replace", is_flag=True, help="Replace the database instead of merging; makes a backup first.")
@ON_NODE
def pull(invocation: Invocation, replace: bool, node: str | None) -> None:  # noqa: FBT001 - click's flag
    """Merge what the other machines know.

    claude-mem keeps running. Rows that only this machine has stay, and are proposed to the others.
    """
    _pull(invocation, PullRequest(replace=replace), node)


@command("pull_sqlite", impact=Impact.WRITE)
def pull_sqlite(invocation: Invocation) -> None:
    """Replace the database: the old tool's name for `pull --replace`."""
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
        after.append(f"backup: {Path(reply.backup).stem}")
    if reply.set_aside:
        after.append(f"the damaged database is kept as {reply.set_aside}")
    return "\n".join(after)


def _push(invocation: Invocation, request: PushRequest, node: str | None = None) -> None:
    # The overrides in this command's environment, not in that of the daemon, which may have been started long ago.
    settings = invocation.settings
    request = msgspec.structs.replace(
        request,
        force=request.force or settings.lane.force_push,
        allow_secondary=settings.leadership.allow_secondary_push,
    )
    reply = requests.ask(invocation, subjects.PUSH, request, node=node)
    invocation.show(reply, lambda reply: click.echo(describe_push(reply)))


def _pull(invocation: Invocation, request: PullRequest, node: str | None = None) -> None:
    request = PullRequest(
        replace=request.replace, allow_primary=invocation.settings.leadership.allow_primary_pull_override
    )
    reply = requests.ask(invocation, subjects.PULL, request, node=node)
    invocation.show(reply, lambda reply: click.echo(describe_pull(reply)))
