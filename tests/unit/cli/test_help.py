"""Every command's help, as a person sees it at 80 columns."""

from collections.abc import Iterator

import click
import pytest

from membridge.cli.main import root


def commands(group: click.Group, context: click.Context) -> Iterator[tuple[str, click.Command, click.Context]]:
    for name in group.list_commands(context):
        found = group.get_command(context, name)
        assert found is not None
        inner = click.Context(found, info_name=name, parent=context, terminal_width=80)
        yield inner.command_path, found, inner
        if isinstance(found, click.Group):
            yield from commands(found, inner)


TOP = click.Context(root, info_name="membridge", terminal_width=80)
EVERY = [("membridge", root, TOP), *commands(root, TOP)]


@pytest.mark.parametrize(("command", "context"), [one[1:] for one in EVERY], ids=[one[0] for one in EVERY])
def test_the_help_fits_a_terminal_and_cuts_no_sentence(command: click.Command, context: click.Context) -> None:
    lines = command.get_help(context).splitlines()

    assert [line for line in lines if len(line) > 80 or (line.endswith("...") and not line.startswith("Usage:"))] == []


@pytest.mark.parametrize(("command", "context"), [one[1:] for one in EVERY], ids=[one[0] for one in EVERY])
def test_every_option_says_what_it_does(command: click.Command, context: click.Context) -> None:
    options = [option for option in command.get_params(context) if isinstance(option, click.Option)]

    assert [option.name for option in options if not option.help] == []
