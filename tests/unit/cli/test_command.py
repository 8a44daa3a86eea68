"""What every command has in common."""

from collections.abc import Iterator

import click
import pytest

from membridge.cli.catalogue import COMMANDS
from membridge.cli.command import Command
from membridge.cli.main import main, root
from schemas.subjects import Impact

#: Commands that write; all others only read.
WRITING = {
    "migrate", "upgrade", "up", "node", "demo", "push", "pull", "push_sqlite", "pull_sqlite", "quarantine retry",
    "quarantine drop", "invite", "join", "nodes revoke", "nodes admit", "nodes invitations",
    "leader select", "leader resign",
    "project add", "project remove", "tag", "gc", "restore", "backups restore", "recover",
    "key new", "key rotate", "key seal",
    "coordinator", "task submit", "task cancel", "task requeue", "worker drain", "worker resume", "worker remove",
    "nats-context", "units", "gateway", "api-key new", "api-key revoke", "claude-config push",
    "claude-config pull",
    "install hooks", "uninstall hooks",
}  # fmt: skip


def leaves() -> Iterator[tuple[str, click.Command]]:
    """Yield every command that does something."""
    context = click.Context(root)
    for name in root.list_commands(context):
        found = root.get_command(context, name)
        assert found is not None, name
        if isinstance(found, click.Group):
            yield from ((f"{name} {inner}", command) for inner, command in found.commands.items())
        else:
            yield name, found


@pytest.mark.parametrize(("name", "command"), list(leaves()))
def test_each_command_has_json_and_project_and_says_whether_it_writes(name: str, command: click.Command) -> None:
    assert isinstance(command, Command)
    assert command.impact is (Impact.WRITE if name in WRITING else Impact.READ)
    options = {option for parameter in command.params for option in parameter.opts}
    assert {"--json", "--project"} <= options
    assert command.help


def test_every_line_of_the_help_fits_80_columns() -> None:
    for line in root.get_help(click.Context(root, info_name="membridge")).splitlines():
        assert len(line) <= 80
    for entry in COMMANDS.values():
        assert len(entry.summary) <= 60


def test_up_refuses_an_address_that_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["up", "--listen", "nonsense"]) == 1

    assert "'nonsense' is not ADDRESS:PORT, such as 0.0.0.0:4222" in capsys.readouterr().err
