"""The clock of leases and invitations: nobody can set it, and it runs through suspend."""

import time


def boottime() -> float:
    """Return the seconds since the machine started, including suspend."""
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime(clock)
