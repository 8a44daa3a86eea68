"""`membridge demo`: two machines, one memory, on this machine and in under a minute."""

import asyncio
import sys
from tempfile import TemporaryDirectory

import click
import uvloop

from membridge.cli.command import Invocation, command
from membridge.testing.scenario import CheckResult, run_scenario
from schemas.subjects import Impact
from schemas.wire import Wire


class DemoReply(Wire, frozen=True, kw_only=True):
    """What the demonstration found."""

    passed: bool
    findings: list[CheckResult]


@command("demo", impact=Impact.WRITE)
def demo_command(invocation: Invocation) -> None:
    """Run two nodes, kill the primary, and check that no row is lost.

    Both nodes have homes of their own in a temporary folder; your memory is not touched.
    """
    quiet = invocation.as_json
    with (
        TemporaryDirectory(prefix="membridge-demo-") as folder,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        findings = runner.run(run_scenario(folder, lambda finding: None if quiet else _print(finding)))
    passed = all(finding.passed for finding in findings)
    if invocation.as_json:
        invocation.show(DemoReply(passed=passed, findings=findings), lambda _: None)
    else:
        click.echo(_verdict(findings, passed=passed))
    if not passed:
        sys.exit(1)


def _print(finding: CheckResult) -> None:
    mark = click.style("ok  ", fg="green") if finding.passed else click.style("FAIL", fg="red")
    click.echo(f"{mark} {finding.seconds:5.1f} s  {finding.checked}")
    if finding.detail:
        click.echo(f"              {finding.detail}")


def _verdict(findings: list[CheckResult], *, passed: bool) -> str:
    if passed:
        return f"\nAll {len(findings)} checks passed: nothing was lost. Now run `membridge up`."
    failed = sum(not finding.passed for finding in findings)
    return f"\n{failed} of {len(findings)} checks failed."
