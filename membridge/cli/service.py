"""`membridge NAME` for each installed service: that service in the foreground, as systemd runs it."""

import os
import sys

import click

from membridge.cli.command import Command, Invocation, command
from membridge.cli.lean import ALLOCATOR
from membridge.wiring.service import Service, installed
from schemas.subjects import Impact


def service_commands() -> dict[str, click.Command]:
    """Return the command of each installed service by its name."""
    return {service.name: _command(service) for service in installed()}


def _command(service: Service) -> Command:
    def run(invocation: Invocation) -> None:
        # As `membridge node` does: wrong settings are reported here, then this process becomes the service.
        invocation.settings.secrets()
        sys.stdout.flush()
        arguments = [sys.executable, "-m", "membridge.wiring.service_process", service.name]
        os.execve(sys.executable, arguments, {**(ALLOCATOR if service.lean else {}), **os.environ})  # noqa: S606 - our own

    run.__doc__ = f"Run {service.summary} until Ctrl-C."
    return command(service.name, impact=Impact.WRITE, warns=False)(run)
