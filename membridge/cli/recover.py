"""`membridge recover`: one head again, after NATS or the object store lost its memory."""

import click

from membridge.cli.command import Invocation, command
from schemas import subjects
from schemas.commits import RecoverReply, RecoverRequest, RecoverySource
from schemas.subjects import Impact


@command("recover", impact=Impact.WRITE)
@click.option(
    "--from",
    "source",
    type=click.Choice([source.value for source in RecoverySource]),
    required=True,
    help="What is whole: the object store, this node's mirror, or its database.",
)
@click.option("--yes", is_flag=True, help="Commit the mirror or the database without asking.")
def recover(invocation: Invocation, source: str, yes: bool) -> None:  # noqa: FBT001 - click's flag
    """Rebuild the head after NATS or the object store lost its memory; on the primary.

    --from store when NATS was lost; --from mirror when the object store was; --from database when this node has
    nothing else. The last two commit a new snapshot: they say what is lost and ask first. See docs/recovery.md.
    """
    from membridge.cli.asking import ask  # noqa: PLC0415 - the bus is loaded only where it is used

    wanted = RecoverySource(source)
    if not yes and wanted is not RecoverySource.STORE:
        seen = ask(invocation, subjects.RECOVER, RecoverRequest(source=wanted, preview=True))
        if not invocation.as_json:
            click.echo(describe_lost(seen))
        invocation.confirm("\ncommit it?", otherwise="nothing was recovered")
    reply = ask(invocation, subjects.RECOVER, RecoverRequest(source=wanted))
    invocation.show(reply, lambda reply: click.echo(describe(reply)))


def describe_lost(seen: RecoverReply) -> str:
    """Return what is lost and what would be committed instead."""
    mine = "database, rows that no snapshot had too,"
    if seen.source is RecoverySource.MIRROR:
        mine = f"mirror of snapshot {seen.seq}" if seen.seq else "mirror"
    return (
        f"lost: {seen.lost}\n"
        f"This node's {mine} becomes the newest snapshot. Other machines merge it and offer what only they have."
    )


def describe(reply: RecoverReply) -> str:
    """Return what was recovered, as a sentence."""
    if reply.committed:
        return f"committed snapshot {reply.seq} from this node's {reply.source}: {reply.rows:,} rows, a full one"
    if reply.rebuilt:
        return f"the head is snapshot {reply.seq} again, as the object store has it"
    return f"nothing to recover: both stores name snapshot {reply.seq} as the head"
