"""`membridge validate` and `upgrade`: whether this installation is as it should be, and the next one."""

import click

from membridge.cli import requests
from membridge.cli.command import Invocation, command
from membridge.cli.state import print_checks
from membridge.errors import MembridgeError
from membridge.settings import Settings
from schemas.node import DoctorReply, Finding
from schemas.subjects import Impact


@command("validate", impact=Impact.READ, warns=False)
@click.option("--environment", is_flag=True, help="Only this Python environment and the settings; asks no server.")
@click.pass_context
def validate(context: click.Context, invocation: Invocation, environment: bool) -> None:  # noqa: FBT001 - click's flag
    """Check files, services, permissions, versions and connections of this installation.

    The exit code is 1 when a check fails.
    """
    from membridge.installation import environment as own  # noqa: PLC0415 - loads every compiled package
    from membridge.installation import receipt, validate  # noqa: PLC0415 - as above

    settings = _settings(invocation)
    checks = own.environment(settings)
    if not environment:
        checks += validate.installation(receipt.find(), settings)
        if isinstance(settings, Settings):
            checks += requests.examine(invocation, None).checks[1:]
    reply = DoctorReply(checks=checks)
    invocation.show(reply, print_checks)
    if any(check.finding is Finding.FAIL for check in checks):
        context.exit(1)


def _settings(invocation: Invocation) -> Settings | MembridgeError:
    try:
        return invocation.settings
    except MembridgeError as error:
        return error
