"""`membridge up`: everything on one machine in one command, the bundled nats-server included."""

from pathlib import Path

import click

from membridge.cli import lean
from membridge.cli.command import Invocation, command
from membridge.cli.up_port import port_of
from membridge.settings.kinds import LISTEN
from schemas.subjects import Impact


class Listen(click.ParamType[str]):
    """An address and port to listen at, as the setting `nats.listen` has them."""

    name = "ADDRESS:PORT"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the address; fail for what the setting does not allow."""
        try:
            return LISTEN.parse(value, Path.home())
        except ValueError:
            self.fail(f"{value!r} is not {LISTEN.allowed}.", param, ctx)


@command("up", impact=Impact.WRITE, warns=False)
@click.option(
    "--listen",
    type=Listen(),
    metavar="ADDRESS:PORT",
    help="Serve other machines too, with TLS and a key for each: 0.0.0.0:4222.",
)
def up_command(invocation: Invocation, listen: str | None) -> None:
    """Run the bundled nats-server and this machine's node.

    Ctrl-C stops both.
    """
    settings = invocation.settings
    # The command line reports wrong settings in its own form.
    settings.secrets()
    given = listen or settings.nats.listen
    if given is None:
        port_of(settings)
    lean.become("membridge.cli.up_process", *([given] if given else []), cache=settings.node.state_dir / "compiled")
