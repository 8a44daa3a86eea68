"""`membridge verify`: is every snapshot that is kept there, whole, and can it be restored."""

import click

from membridge.cli import units
from membridge.cli.command import Invocation, command
from schemas import subjects
from schemas.commits import VerifyFinding, VerifyReply, VerifyRequest
from schemas.node import Finding
from schemas.subjects import Impact

COLUMNS = ("", "seq>", "what", "*found")


@command("verify", impact=Impact.READ)
@click.option("--seq", type=click.IntRange(1), help="Only the chain that leads to this snapshot.")
@click.option("--sample", type=click.IntRange(1), metavar="N", help="Read only N objects, chosen at random.")
@click.pass_context
def verify(context: click.Context, invocation: Invocation, seq: int | None, sample: int | None) -> None:
    """Check that every snapshot that is kept is there, whole, and can be restored; exit code 1 when one cannot."""
    from membridge.cli.asking import ask  # noqa: PLC0415 - the bus is loaded only where it is used

    reply = ask(invocation, subjects.VERIFY, VerifyRequest(seq=seq, sample=sample))
    invocation.show(reply, print_verified)
    if any(one.finding is Finding.FAIL for one in reply.findings):
        context.exit(1)


def print_verified(reply: VerifyReply) -> None:
    """Print what was found, and what was looked at."""
    from membridge.cli import tables  # noqa: PLC0415 - rich is loaded only where people read

    if reply.findings:
        tables.table(COLUMNS, map(_row, reply.findings), empty="")
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
