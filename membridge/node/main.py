"""The daemon's own process: `python -m membridge.node.main`, into which `membridge node` turns itself.

Loads no command line. A failure ends as one line on standard error and the exit code of the error table.
"""

import asyncio
import os
import sys
from pathlib import Path

import uvloop

from membridge import logging
from membridge.errors import MembridgeError, RevokedError
from membridge.node import daemon
from membridge.settings import Settings, load
from membridge.system.files import of_file

log = logging.get_logger("membridge.node")

#: The exit code of a machine that was revoked, EX_NOPERM of sysexits.h: the systemd unit does not start it again.
REVOKED = 77


def start_logging(settings: Settings) -> None:
    """Send this process's log lines where the settings say, secrets masked; log what is odd about the settings."""
    logging.setup(form=settings.node.log_format.value, level=settings.node.log_level.value, secrets=settings.secrets())
    for warning in settings.warnings:
        log.warning("a setting needs a look", detail=warning)


def main() -> int:
    """Run the daemon until SIGTERM or Ctrl-C; return its exit code."""
    try:
        settings = load(os.environ, Path.home())
        start_logging(settings)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(settings))
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
    return REVOKED if isinstance(error, RevokedError) else error.mapping.exit


async def _serve(settings: Settings) -> None:
    stopping = asyncio.Event()
    with daemon.signals_set(stopping):
        await daemon.run(settings, os.environ, stopping=stopping)


if __name__ == "__main__":
    sys.exit(main())
