"""`membridge recover`: one head again, after NATS or the object store lost its memory."""

import click

from membridge.cli.command import Invocation, command
from schemas import subjects
from schemas.history import RecoverReply, RecoverRequest, RecoverySource
from schemas.subjects import Impact


@command("recover", impact=Impact.WRITE)
@click.option(
    "--from",
    "source",
    type=click.Choice([source.value for source in RecoverySource]),
    required=True,
    help="What is whole: the object store, this node's mirror, or its database.",
)
def recover(invocation: Invocation, source: str) -> None:
    """Rebuild the head after NATS or the object store lost its memory; on the primary.

    --from store when NATS was lost; --from mirror when the object store was; --from database when this node has
    nothing else. See docs/recovery.md.
    """
    from membridge.cli.asking import ask  # noqa: PLC0415 - the bus is loaded only where it is used

    request = RecoverRequest(source=RecoverySource(source))
    invocation.show(ask(invocation, subjects.RECOVER, request), lambda reply: click.echo(describe(reply)))


def describe(reply: RecoverReply) -> str:
    """Return what was recovered, as a sentence."""
    if reply.committed:
        return f"committed snapshot {reply.seq} from this node's {reply.source}: {reply.rows:,} rows, a full one"
    if reply.rebuilt:
        return f"the head is snapshot {reply.seq} again, as the object store has it"
    return f"nothing to recover: both stores name snapshot {reply.seq} as the head"
