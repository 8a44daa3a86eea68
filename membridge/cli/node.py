"""`membridge node`: this machine's daemon in the foreground, as systemd runs it."""

from membridge.cli import lean
from membridge.cli.command import Invocation, command
from schemas.subjects import Impact


@command("node", impact=Impact.WRITE, warns=False)
def node_command(invocation: Invocation) -> None:
    """Run this machine's daemon until SIGTERM or Ctrl-C."""
    # The command line reports wrong settings in its own form.
    invocation.settings.secrets()
    lean.become("membridge.node.main", cache=invocation.settings.node.state_dir / "compiled")
