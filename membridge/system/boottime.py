"""The clock of leases and invitations: nobody can set it, and it runs through suspend."""

import sys
import time


def boottime() -> float:
    """Return the seconds since the machine started, including suspend."""
    if sys.platform == "win32":
        # The only clock there that nobody can set; it runs through suspend.
        return time.monotonic()
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime(clock)
