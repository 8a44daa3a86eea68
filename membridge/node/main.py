"""The daemon's own process: `python -m membridge.node.main`, into which `membridge node` turns itself."""

import asyncio
import os
import sys

from membridge.node import daemon
from membridge.settings import Settings
from membridge.system.signals import signals_set
from membridge.wiring import process


def main() -> int:
    """Run the daemon until SIGTERM or Ctrl-C; return its exit code."""
    return process.run(_serve)


async def _serve(settings: Settings) -> None:
    stopping = asyncio.Event()
    with signals_set(stopping):
        await daemon.run(settings, os.environ, stopping=stopping)


if __name__ == "__main__":
    sys.exit(main())
