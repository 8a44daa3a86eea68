"""The daemon's own process: `python -m membridge.node.main`, into which `membridge node` turns itself.

Loads no command line. A failure ends as one line on standard error and the exit code of the error table.
"""

import asyncio
import os
import sys
from pathlib import Path

import uvloop

from membridge.errors import MembridgeError, RevokedError
from membridge.node import daemon
from membridge.settings import Settings, load
from membridge.system import logging
from membridge.system.files import of_file
from membridge.system.signals import signals_set
from membridge.wiring.logs import start_logging

log = logging.get_logger("membridge.node")

#: The exit code of a machine that was revoked, EX_NOPERM of sysexits.h: the systemd unit does not start it again.
REVOKED = 77


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
    with signals_set(stopping):
        await daemon.run(settings, os.environ, stopping=stopping)


if __name__ == "__main__":
    sys.exit(main())
