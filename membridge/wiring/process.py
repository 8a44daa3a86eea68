"""A process that runs until it is stopped, without the command line.

A failure ends as one line on standard error and the exit code of the error table.
"""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import uvloop

from membridge.aio.tasks import first_failure
from membridge.errors import MembridgeError, RevokedError
from membridge.settings import Settings, load
from membridge.system.files import of_file
from membridge.wiring.logs import start_logging

#: The exit code of a machine that was revoked, EX_NOPERM of sysexits.h: the systemd unit does not start it again.
REVOKED = 77


def run(serve: Callable[[Settings], Awaitable[None]]) -> int:
    """Run `serve` with the settings of this user; return the exit code."""
    try:
        settings = load(os.environ, Path.home())
        start_logging(settings)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serving(serve, settings))
    except MembridgeError as error:
        return _report(error)
    except OSError as error:
        if (told := of_file(error)) is None:
            raise
        return _report(told)
    except KeyboardInterrupt:
        return 130
    return 0


async def _serving(serve: Callable[[Settings], Awaitable[None]], settings: Settings) -> None:
    with first_failure():
        await serve(settings)


def _report(error: MembridgeError) -> int:
    sys.stderr.write(f"error: {error.message}\n")
    if error.remedy:
        sys.stderr.write(f"  remedy: {error.remedy}\n")
    return REVOKED if isinstance(error, RevokedError) else error.mapping.exit
