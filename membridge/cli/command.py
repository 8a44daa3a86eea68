"""What every command has: `--json`, `--project`, a tag that says whether it writes, and one way to print its reply.

A command is a function of an `Invocation` and its own options; it raises errors and never prints them.
"""

import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

import click

from membridge.cli import units
from membridge.cli.catalogue import ON_WINDOWS, Entry
from membridge.errors import NotOnWindowsError, RefusedError
from membridge.settings import Settings, load
from membridge.system import logging
from membridge.system.entry_points import resolve
from membridge.system.windows import on_windows
from schemas.identity import InvalidTokenError, canonical_id
from schemas.subjects import Impact
from schemas.wire import Wire

P = ParamSpec("P")
W = TypeVar("W", bound=Wire)


ON_NODE = click.option(
    "--node",
    metavar="NODE",
    help="Ask the daemon of NODE. Needs the operator's key (on the server's machine) or a server without keys.",
)


class Invocation:
    """One run of a command: its common options and the settings, read when first needed."""

    def __init__(self, *, as_json: bool, project_name: str | None, warns: bool = True) -> None:
        self.as_json = as_json
        self.project_name = project_name
        self._warns = warns

    @functools.cached_property
    def settings(self) -> Settings:
        """The settings of this user; what is odd about them goes to standard error once."""
        settings = load(os.environ, Path.home())
        if self._warns:
            for warning in settings.warnings:
                click.echo(f"{click.style('warning:', fg='yellow')} {units.printable(warning)}", err=True)
        return settings

    def show(self, reply: W, render: Callable[[W], None]) -> None:
        """Print `reply`: as JSON when asked for, else as `render` does."""
        if self.as_json:
            print_json(reply)
        else:
            render(reply)

    def confirm(self, question: str, *, otherwise: str) -> None:
        """Ask whether to go on. Raises RefusedError, which says `otherwise`, for a no and without a terminal."""
        if self.as_json or not sys.stdin.isatty():
            raise RefusedError(f"{otherwise}: without a terminal it cannot ask", remedy="run it again with --yes")
        if not click.confirm(question):
            raise RefusedError(otherwise)


class Command(click.Command):
    """A command that says whether it reads or writes."""

    impact: Impact = Impact.READ


class DefaultGroup(click.Group):
    """A group of commands that runs `default` when none of them is named."""

    def __init__(self, name: str, *, default: str, commands: list[click.Command], summary: str) -> None:
        super().__init__(name, commands=commands, help=summary)
        self.default = default

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the names in the order of their declaration."""
        return list(self.commands)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the default command in front unless the first argument is a command."""
        if not args or (args[0].startswith("-") and args[0] not in ctx.help_option_names):
            args = [self.default, *args]
        return super().parse_args(ctx, args)


class LazyGroup(click.Group):
    """The root: commands are imported when they run, and a missing one harms no other.

    `services` makes the commands of the installed services.
    """

    def __init__(
        self,
        name: str,
        *,
        entries: dict[str, Entry],
        services: Callable[[], dict[str, click.Command]] = dict,
        summary: str,
    ) -> None:
        super().__init__(name, help=summary, context_settings={"help_option_names": ["-h", "--help"]})
        self.entries, self.services = entries, services

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the names in the order of the catalogue, then those of services; on Windows those that run there."""
        return [*self._here(), *self._services()]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command."""
        entry = self._here().get(cmd_name)
        if entry is None:
            if cmd_name in self.entries or (on_windows() and cmd_name in self.services()):
                raise NotOnWindowsError(
                    f"`membridge {cmd_name}` needs a node on this machine, and none runs on Windows"
                )
            return self.services().get(cmd_name)
        try:
            found = resolve(entry.target)
        except ModuleNotFoundError as error:
            if error.name != entry.target.partition(":")[0]:
                raise
            raise click.UsageError(f"`{cmd_name}` is not part of this installation.", ctx) from error
        return found if isinstance(found, click.Command) else None

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Show the help when nothing is asked for."""
        return super().parse_args(ctx, args or ["--help"])

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - as above
        """Write the list of commands without loading one."""
        lines = [(name, entry.summary) for name, entry in self._here().items()]
        lines += [(name, found.get_short_help_str()) for name, found in self._services().items()]
        with formatter.section("Commands"):
            formatter.write_dl(lines)

    def _here(self) -> dict[str, Entry]:
        """Return the commands of this system by name."""
        return {name: one for name, one in self.entries.items() if name in ON_WINDOWS or not on_windows()}

    def _services(self) -> dict[str, click.Command]:
        return {} if on_windows() else self.services()


def command(
    name: str, *, impact: Impact, warns: bool = True
) -> Callable[[Callable[Concatenate[Invocation, P], None]], Command]:
    """Make a command of a function; its docstring is the help, `impact` the tag.

    `warns` is False for a command that shows or logs the warnings of the settings itself.
    """

    def decorate(function: Callable[Concatenate[Invocation, P], None]) -> Command:
        @functools.wraps(function)
        def run(*args: P.args, **options: P.kwargs) -> None:
            as_json, project_name = bool(options.pop("as_json")), options.pop("project_name")
            invocation = Invocation(as_json=as_json, project_name=_checked(project_name), warns=warns)
            function(invocation, *args, **options)

        made = click.command(name, cls=Command)(run)
        made.params += [
            click.Option(["--project", "project_name"], metavar="NAME", help="Which project, by name or id."),
            click.Option(["--json", "as_json"], is_flag=True, help="Print one JSON document, also for an error."),
        ]
        made.impact = impact
        return made

    return decorate


def print_json(value: Wire) -> None:
    """Print `value` as one JSON document on standard output."""
    import msgspec  # noqa: PLC0415 - only where JSON is printed

    body = msgspec.json.encode(value)
    click.echo(msgspec.json.format(body, indent=2) if sys.stdout.isatty() else body)


def _checked(name: object) -> str | None:
    if name is None:
        return None
    try:
        canonical_id(str(name))
    except InvalidTokenError as error:
        raise click.BadParameter(f"{error}.", param_hint="--project") from error
    return str(name)


def quiet(settings: Settings) -> None:
    """Let a command show what went wrong, not what its connection does."""
    logging.setup(form="text", level="debug" if settings.node.dev else "error", secrets=settings.secrets())
