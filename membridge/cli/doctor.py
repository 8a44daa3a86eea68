"""`membridge doctor`: one line for each thing this node needs, with what to do about it."""

import click

from membridge.cli import lane, units
from membridge.cli.command import Invocation, command
from schemas import subjects
from schemas.node import Check, DoctorReply, Empty, Finding
from schemas.subjects import Impact


@command("doctor", impact=Impact.READ, warns=False)
@lane.ON_NODE
@click.pass_context
def doctor(context: click.Context, invocation: Invocation, node: str | None) -> None:
    """Check everything this node needs and say what to do; exit code 1 when something fails."""
    from membridge.cli.asking import ask_node, examine  # noqa: PLC0415 - the bus is loaded only where it is used

    reply = ask_node(invocation, subjects.DOCTOR, Empty(), node) if node else examine(invocation)
    invocation.show(reply, print_checks)
    if any(check.finding is Finding.FAIL for check in reply.checks):
        context.exit(1)


def print_checks(reply: DoctorReply) -> None:
    """Print the checks, each with its remedy below it, and their sum."""
    from membridge.cli import tables  # noqa: PLC0415 - rich is loaded only where people read

    rows = [(check.finding.upper(), check.name, _detail(check)) for check in reply.checks]
    tables.table(("", "check", "*found"), rows, empty="nothing to check")
    failed = sum(check.finding is Finding.FAIL for check in reply.checks)
    warned = sum(check.finding is Finding.WARN for check in reply.checks)
    skipped = sum(check.finding is Finding.SKIPPED for check in reply.checks)
    if failed or warned or skipped:
        found = f"{units.count(failed, 'failure')}, {units.count(warned, 'warning')}"
        tables.line(f"\n{found}, {skipped} not looked at" if skipped else f"\n{found}")
    else:
        tables.line("\nall is well")


def _detail(check: Check) -> str:
    return f"{check.detail}\n-> {check.remedy}" if check.remedy and check.finding is not Finding.OK else check.detail
