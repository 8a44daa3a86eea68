"""`membridge node`: this machine's daemon in the foreground, as systemd runs it."""

import asyncio
import os

import uvloop

from membridge import logging
from membridge.cli.command import Invocation, command
from membridge.node import daemon
from membridge.settings import Settings
from schemas.subjects import Impact


@command("node", impact=Impact.WRITE)
def node_command(invocation: Invocation) -> None:
    """Run this machine's daemon until SIGTERM or Ctrl-C."""
    settings = invocation.settings
    start_logging(settings)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(settings))


def start_logging(settings: Settings) -> None:
    """Send this process's log lines where the settings say, with the settings' secrets masked."""
    logging.setup(form=settings.node.log_format.value, level=settings.node.log_level.value, secrets=settings.secrets())


async def _serve(settings: Settings) -> None:
    stopping = asyncio.Event()
    with daemon.signals_set(stopping):
        await daemon.run(settings, os.environ, stopping=stopping)
