"""The process of a service: `python -m membridge.wiring.service_process NAME`, which `membridge NAME` becomes."""

import asyncio
import os
import sys
from functools import partial

from membridge.aio import lifecycle
from membridge.settings import Settings
from membridge.system.logging import get_logger
from membridge.system.sd_notify import Notifier
from membridge.system.signals import signals_set
from membridge.wiring import process
from membridge.wiring.service import Service, installed

#: Seconds that a service may take to stop: longer than requests over HTTP, and then those over NATS, may take to end.
DRAIN = 16.0


def main(name: str) -> int:
    """Run a service until SIGTERM or Ctrl-C; return its exit code."""
    return process.run(partial(_serve, next(one for one in installed() if one.name == name)))


async def _serve(service: Service, settings: Settings) -> None:
    """Run a service until SIGTERM; end with its failure when it cannot begin."""
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


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
