"""The process of a service: `python -m membridge.wiring.service_process NAME`, which `membridge NAME` becomes.

Loads no command line. A failure ends as one line on standard error and the exit code of the error table.
"""

import asyncio
import os
import sys
from functools import partial
from pathlib import Path

import uvloop

from membridge.aio import lifecycle
from membridge.errors import MembridgeError
from membridge.settings import Settings, load
from membridge.system.files import of_file
from membridge.system.logging import get_logger
from membridge.system.sd_notify import Notifier
from membridge.system.signals import signals_set
from membridge.wiring.logs import start_logging
from membridge.wiring.service import Service, installed

#: Seconds that a service may take to stop: longer than requests over HTTP, and then those over NATS, may take to end.
DRAIN = 16.0


def main(name: str) -> int:
    """Run a service until SIGTERM or Ctrl-C; return its exit code."""
    try:
        settings = load(os.environ, Path.home())
        start_logging(settings)
        service = next(one for one in installed() if one.name == name)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(service, settings))
    except MembridgeError as error:
        return _report(error)
    except OSError as error:
        if (told := of_file(error)) is None:
            raise
        return _report(told)
    except KeyboardInterrupt:
        return 130
    return 0


def _report(error: MembridgeError) -> int:
    sys.stderr.write(f"error: {error.message}\n")
    if error.remedy:
        sys.stderr.write(f"  remedy: {error.remedy}\n")
    return error.mapping.exit


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
