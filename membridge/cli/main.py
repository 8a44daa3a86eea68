"""`membridge`: finds the command, and turns every failure into a line for people and an exit code.

This is the only place where an error leaves the process through a shell; no command prints one itself.
"""

import io
import os
import sys
import traceback
from collections.abc import Sequence

import click

from membridge import __version__
from membridge.aio.tasks import cause_of, leaves
from membridge.cli import units
from membridge.cli.catalogue import COMMANDS
from membridge.cli.command import LazyGroup, print_json
from membridge.cli.service import service_commands
from membridge.errors import InvalidRequestError, MembridgeError
from membridge.settings import mask_userinfo
from membridge.system.files import of_file
from membridge.system.windows import on_windows

#: What a shell expects of a program that Ctrl-C ended: 128 and the number of SIGINT.
INTERRUPTED = 130
SUMMARY = "One claude-mem memory on several machines."

root = click.version_option(__version__, message="membridge %(version)s")(
    LazyGroup("membridge", entries=COMMANDS, services=service_commands, summary=SUMMARY)
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    as_json = "--json" in given
    if on_windows():
        _print_everything()
    try:
        code: object = root.main(given, prog_name="membridge", standalone_mode=False)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return INTERRUPTED
    except click.ClickException as error:
        return report(_usage(error), as_json=as_json)
    except Exception as error:  # noqa: BLE001 - the last frame: whatever it is, it ends as a line and a code
        return report(_known(error) or _unexpected(error), as_json=as_json)
    return code if isinstance(code, int) else 0


def report(error: MembridgeError, *, as_json: bool) -> int:
    """Print `error` for people on standard error, or as JSON on standard output; return its exit code."""
    if as_json:
        print_json(error.reply(getattr(error, "request_id", None)))
    else:
        click.echo(f"{click.style('error:', fg='red')} {units.printable(error.message)}", err=True)
        if error.remedy:
            click.echo(f"  remedy: {units.printable(error.remedy)}", err=True)
    return error.mapping.exit


def _print_everything() -> None:
    """Let what a pipe's code page lacks be printed as `?`: on Windows it is often not UTF-8. A console shows it all."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _usage(error: click.ClickException) -> MembridgeError:
    context = error.ctx if isinstance(error, click.UsageError) else None
    asked = context.command_path if context else "membridge"
    return InvalidRequestError(error.format_message(), remedy=f"see `{asked} --help`")


def _known(error: BaseException) -> MembridgeError | None:
    """Return the failure of ours or of a disk that `error` is, or that a group of failures began with."""
    found = (one if isinstance(one, MembridgeError) else of_file(one) for one in leaves(error))
    return next((one for one in found if one), None)


def _unexpected(error: Exception) -> MembridgeError:
    remedy = "set MEMBRIDGE_DEV=1 to see where"
    if os.environ.get("MEMBRIDGE_DEV", "").lower() in {"1", "true", "yes", "on"}:
        traceback.print_exception(error)
        remedy = ""
    first = cause_of(error)
    text = mask_userinfo(" ".join(f"{type(first).__name__}: {first}".split()))
    return MembridgeError(f"unexpected: {text[:300]}", remedy=remedy)


if __name__ == "__main__":
    sys.exit(main())
