"""`membridge validate` and `upgrade`: whether this installation is as it should be, and the next one."""

import subprocess
from pathlib import Path

import click
import msgspec

import membridge
from membridge.cli import requests
from membridge.cli.command import Invocation, command
from membridge.cli.state import print_checks
from membridge.errors import MembridgeError
from membridge.settings import Settings
from membridge.system import receipt
from membridge.system.windows import on_windows
from schemas.node import DoctorReply, Finding
from schemas.subjects import Impact
from schemas.wire import Wire


class UpgradeReply(Wire, frozen=True, kw_only=True):
    """The version that runs, and the newest one; `upgraded` says whether it was installed."""

    installed: str
    newest: str
    newer: bool
    source: str
    upgraded: bool = False


@command("validate", impact=Impact.READ, warns=False)
@click.option("--environment", is_flag=True, help="Only this Python environment and the settings; asks no server.")
@click.pass_context
def validate(context: click.Context, invocation: Invocation, environment: bool) -> None:  # noqa: FBT001 - click's flag
    """Check files, services, permissions, versions and connections of this installation.

    The exit code is 1 when a check fails. On Windows it checks the environment alone.
    """
    from membridge.installation import environment as own  # noqa: PLC0415 - loads every compiled package

    settings = _settings(invocation)
    checks = own.environment(settings)
    if not environment and not on_windows():
        from membridge.installation import validate  # noqa: PLC0415 - services are not those of Windows

        checks += validate.installation(receipt.find(), settings)
        if isinstance(settings, Settings):
            checks += requests.examine(invocation, None).checks[1:]
    reply = DoctorReply(checks=checks)
    invocation.show(reply, print_checks)
    if any(check.finding is Finding.FAIL for check in checks):
        context.exit(1)


@command("upgrade", impact=Impact.WRITE)
@click.option("--check", is_flag=True, help="Only say whether there is a newer version.")
@click.option(
    "--from",
    "source",
    metavar="PATH",
    type=click.Path(exists=True, path_type=Path),
    help="A wheel or a source tree; else where this version came from.",
)
@click.pass_context
def upgrade(context: click.Context, invocation: Invocation, check: bool, source: Path | None) -> None:  # noqa: FBT001 - click's flag
    """Install the newest version beside this one, check it, switch to it.

    If it does not work on this machine nothing changes; if a service does not start, this version runs again.
    """
    from membridge.installation import upgrade  # noqa: PLC0415 - only here

    ours = upgrade.needs_receipt(receipt.find())
    newest = upgrade.newest(ours, source.absolute() if source else None)
    reply = UpgradeReply(
        installed=membridge.__version__,
        newest=newest.version,
        newer=newest.is_newer,
        source=str(newest.source or "the package index"),
    )
    # A source tree may have changed without a new version.
    if check or (source is None and not newest.is_newer):
        invocation.show(reply, _print_upgrade)
        return
    done = subprocess.run(upgrade.command(ours, newest), check=False, capture_output=invocation.as_json)  # noqa: S603 - our own script
    if done.returncode:
        if invocation.as_json:
            click.echo(done.stderr, err=True, nl=False)
        context.exit(1)
    invocation.show(msgspec.structs.replace(reply, upgraded=True), _print_upgrade)


def _print_upgrade(reply: UpgradeReply) -> None:
    if reply.upgraded:
        click.echo(f"upgraded from {reply.installed} to {reply.newest}")
    elif reply.newer:
        click.echo(
            f"{reply.source} has membridge {reply.newest}, {reply.installed} runs: `membridge upgrade` installs it"
        )
    else:
        click.echo(f"membridge {reply.installed} runs, and {reply.source} has nothing newer")


def _settings(invocation: Invocation) -> Settings | MembridgeError:
    try:
        return invocation.settings
    except MembridgeError as error:
        return error
