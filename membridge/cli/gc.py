"""`membridge gc`: delete the snapshots that are no longer kept."""

import click

from membridge.cli import units
from membridge.cli.command import Invocation, command
from schemas import subjects
from schemas.commits import GcReply, GcRequest
from schemas.subjects import Impact


@command("gc", impact=Impact.WRITE)
@click.option("--dry-run", is_flag=True, help="Only say what would be deleted.")
def gc(invocation: Invocation, dry_run: bool) -> None:  # noqa: FBT001 - click's flag
    """Delete the snapshots that are no longer kept; the primary's daemon does so once a day."""
    from membridge.cli.asking import ask  # noqa: PLC0415 - the bus is loaded only where it is used

    reply = ask(invocation, subjects.GC, GcRequest(dry_run=dry_run))
    invocation.show(reply, lambda reply: click.echo(describe_gc(reply)))


def describe_gc(reply: GcReply) -> str:
    """Return what went, as a sentence or two."""
    parts = [
        units.count(number, noun)
        for number, noun in (
            (reply.snapshots, "snapshot"),
            (reply.orphans, "abandoned upload"),
            (reply.proposals, "old proposal"),
        )
        if number
    ]
    kept = f"{units.count(reply.kept, 'snapshot')} kept"
    if not parts:
        return f"nothing to delete: {kept}"
    done = "would be deleted" if reply.dry_run else "deleted"
    sentence = f"{', '.join(parts)} {done} ({units.size(reply.freed_bytes)}); {kept}"
    return f"{sentence}\nseq {runs(reply.seqs)}" if reply.seqs else sentence


def runs(seqs: list[int]) -> str:
    """Return ascending numbers with neighbours drawn together: `1-3, 7`."""
    drawn: list[list[int]] = []
    for seq in seqs:
        if drawn and drawn[-1][-1] == seq - 1:
            drawn[-1][1:] = [seq]
        else:
            drawn.append([seq])
    return ", ".join("-".join(map(str, run)) for run in drawn)
