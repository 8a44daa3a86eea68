"""`claude-mem-hook-pull` and `claude-mem-hook-push`: the old tool's names for the hooks of Membridge's plugin.

They run the plugin's scripts, with the options that they are given. Without the plugin they do nothing.
"""

import os
import sys
from pathlib import Path


def pull() -> int:
    """Ask the daemon for fresh memory, as at a session start."""
    return _run("session_start.sh")


def push() -> int:
    """Put a Stop into the spool: the daemon pushes."""
    return _run("event.sh", "Stop")


def _run(script: str, *arguments: str) -> int:
    folder = Path(os.environ.get("CLAUDE_CONFIG_DIR") or Path.home() / ".claude")
    path = folder / "skills" / "membridge" / script
    if path.is_file():
        os.execv("/bin/sh", ["/bin/sh", str(path), *arguments, *sys.argv[1:]])  # noqa: S606 - ours, without a shell's text
    return 0
