"""Whether this is Windows. There Membridge is a client: no daemon runs, and nothing opens claude-mem's database."""

import sys


def on_windows() -> bool:
    """Return whether this process runs on Windows itself; inside WSL it runs on Linux."""
    return sys.platform == "win32"
