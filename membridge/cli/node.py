"""`membridge node`: this machine's daemon in the foreground, as systemd runs it."""

import os
import sys

from membridge.cli.command import Invocation, command
from schemas.subjects import Impact

#: glibc's allocator for a process that lives for months: one arena, and freed memory given back. A push allocates tens
#: of megabytes for a moment; by default 8 MiB of them stay for good. Read by the C library at start only.
ALLOCATOR = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_TRIM_THRESHOLD_": "65536",
    "MALLOC_MMAP_THRESHOLD_": "65536",
}


@command("node", impact=Impact.WRITE, warns=False)
def node_command(invocation: Invocation) -> None:
    """Run this machine's daemon until SIGTERM or Ctrl-C."""
    # The command line reports wrong settings in its own form. Then this process becomes the daemon under the same
    # process id, without the command line in memory.
    invocation.settings.secrets()
    sys.stdout.flush()
    arguments = [sys.executable, "-m", "membridge.node.main"]
    os.execve(sys.executable, arguments, {**ALLOCATOR, **os.environ})  # noqa: S606 - our own program
