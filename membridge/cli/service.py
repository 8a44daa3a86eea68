"""`membridge NAME` for each installed service: that service in the foreground, as systemd runs it."""

import asyncio
import os
from functools import partial

import click

from membridge.aio import lifecycle
from membridge.cli.command import Command, Invocation, command
from membridge.settings import Settings
from membridge.system.logging import get_logger
from membridge.wiring.service import Service, installed
from schemas.subjects import Impact

#: Seconds that a service may take to stop: longer than requests over HTTP, and then those over NATS, may take to end.
DRAIN = 16.0


def service_commands() -> dict[str, click.Command]:
    """Return the command of each installed service by its name."""
    return {service.name: _command(service) for service in installed()}


def _command(service: Service) -> Command:
    def run(invocation: Invocation) -> None:
        import uvloop  # noqa: PLC0415 - loaded only where something runs

        from membridge.wiring.logs import start_logging  # noqa: PLC0415 - as above

        start_logging(invocation.settings)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(service, invocation.settings))

    run.__doc__ = f"Run {service.summary} until Ctrl-C."
    return command(service.name, impact=Impact.WRITE, warns=False)(run)


async def _serve(service: Service, settings: Settings) -> None:
    """Run a service until SIGTERM; end with its failure when it cannot begin."""
    from membridge.system.sd_notify import Notifier  # noqa: PLC0415 - loaded only where something runs
    from membridge.system.signals import signals_set  # noqa: PLC0415 - as above

    stopping, notifier = asyncio.Event(), Notifier.of(os.environ)
    log, event = get_logger(service.logger), f"{service.name} ready"

    def ready() -> None:
        notifier.ready()
        log.info(event)

    with signals_set(stopping):
        await lifecycle.run(
            {"watchdog": notifier.alive, service.name: partial(service.part, settings)},
            stopping=stopping,
            on_ready=ready,
            on_stopping=notifier.stopping,
            drain=DRAIN,
        )
