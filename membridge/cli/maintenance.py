"""`membridge verify`, `gc` and `recover`: check, delete and rebuild what the stores hold of a project."""

import click

from membridge.cli import requests, tables, units
from membridge.cli.command import Invocation, command
from schemas import subjects
from schemas.commits import (
    GcReply,
    GcRequest,
    RecoverReply,
    RecoverRequest,
    RecoverySource,
    VerifyFinding,
    VerifyReply,
    VerifyRequest,
)
from schemas.node import Finding
from schemas.subjects import Impact

FINDING_COLUMNS = ("", "seq>", "what", "*found")


@command("verify", impact=Impact.READ)
@click.option("--seq", type=click.IntRange(1), metavar="N", help="Only snapshot N and those that it builds on.")
@click.option("--sample", type=click.IntRange(1), metavar="N", help="Read only N objects, chosen at random.")
@click.pass_context
def verify(context: click.Context, invocation: Invocation, seq: int | None, sample: int | None) -> None:
    """Check that every kept snapshot can be restored.

    The exit code is 1 when one cannot.
    """
    reply = requests.ask(invocation, subjects.VERIFY, VerifyRequest(seq=seq, sample=sample))
    invocation.show(reply, print_verified)
    if any(one.finding is Finding.FAIL for one in reply.findings):
        context.exit(1)


def print_verified(reply: VerifyReply) -> None:
    """Print what was found, and what was looked at."""
    if reply.findings:
        tables.table(FINDING_COLUMNS, map(_row, reply.findings), empty="")
        more = " and more" if reply.truncated else ""
        failed = sum(one.finding is Finding.FAIL for one in reply.findings)
        tables.line(f"\n{units.count(failed, 'failure')}{more}")
    snapshots, chains = units.count(reply.records, "snapshot"), units.count(reply.chains, "chain")
    objects, size = units.count(reply.objects, "object"), units.size(reply.read_bytes)
    tables.line(
        f"{snapshots} in {chains}, {reply.restored:,} restored and compared; {objects}, {reply.read_objects:,} read "
        f"({size}) in {units.duration(reply.seconds)}"
    )
    if not reply.findings:
        tables.line("all is well" if reply.records else "no snapshot yet: `membridge push` makes the first")


def _row(one: VerifyFinding) -> tuple[str, ...]:
    detail = f"{one.detail}\n-> {one.remedy}" if one.remedy else one.detail
    return (one.finding.upper(), str(one.seq or ""), one.what, detail)


@command("gc", impact=Impact.WRITE)
@click.option("--dry-run", is_flag=True, help="Show what would be deleted; delete nothing.")
def gc(invocation: Invocation, dry_run: bool) -> None:  # noqa: FBT001 - click's flag
    """Delete expired snapshots and abandoned uploads.

    The primary's daemon does this once a day.
    """
    reply = requests.ask(invocation, subjects.GC, GcRequest(dry_run=dry_run))
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


@command("recover", impact=Impact.WRITE)
@click.option(
    "--from",
    "source",
    type=click.Choice([source.value for source in RecoverySource]),
    required=True,
    help="What still has the memory: the object store, this node's mirror, or its database.",
)
@click.option("--yes", is_flag=True, help="Do not ask before committing.")
def recover(invocation: Invocation, source: str, yes: bool) -> None:  # noqa: FBT001 - click's flag
    """Rebuild the head after NATS or the object store lost data.

    Run it on the primary: with --from store when NATS lost it, with --from mirror when the object store did, with
    --from database when this node has nothing else. The last two commit a new snapshot; they show what is lost and
    ask first. See docs/recovery.md.
    """
    wanted = RecoverySource(source)
    if not yes and wanted is not RecoverySource.STORE:
        seen = requests.ask(invocation, subjects.RECOVER, RecoverRequest(source=wanted, preview=True))
        if not invocation.as_json:
            click.echo(describe_lost(seen))
        invocation.confirm("\ncommit it?", otherwise="nothing was recovered")
    reply = requests.ask(invocation, subjects.RECOVER, RecoverRequest(source=wanted))
    invocation.show(reply, lambda reply: click.echo(describe_recovered(reply)))


def describe_lost(seen: RecoverReply) -> str:
    """Return what is lost and what would be committed instead."""
    mine = "database, rows that no snapshot had too,"
    if seen.source is RecoverySource.MIRROR:
        mine = f"mirror of snapshot {seen.seq}" if seen.seq else "mirror"
    return (
        f"lost: {seen.lost}\n"
        f"This node's {mine} becomes the newest snapshot. Other machines merge it and offer what only they have."
    )


def describe_recovered(reply: RecoverReply) -> str:
    """Return what was recovered, as a sentence."""
    if reply.committed:
        return f"committed snapshot {reply.seq} from this node's {reply.source}: {reply.rows:,} rows, a full one"
    if reply.rebuilt:
        return f"the head is snapshot {reply.seq} again, as the object store has it"
    return f"nothing to recover: both stores name snapshot {reply.seq} as the head"
