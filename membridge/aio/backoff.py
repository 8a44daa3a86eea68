"""The one back-off: the pause between two tries doubles with each failure in a row up to a bound, with jitter."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import NoReturn

from membridge.aio.lifecycle import PartEndedError
from membridge.aio.tasks import apart

#: Default seconds of the first and the longest pause: a node catches up soon after an outage.
FIRST, MOST = 0.5, 10.0
#: Seconds of work after which the next failure counts as the first again.
HEALTHY = 60.0
#: Failures after which the pause would exceed any bound.
_ENOUGH = 16


def jittered(seconds: float, *, least: float = 0.5) -> float:
    """Return `seconds` shortened at random, to `least` of it at most, so that many waiters do not come at once."""
    return seconds * random.uniform(least, 1.0)  # noqa: S311 - spreads load, guards nothing


def pause_after(failures: int, *, first: float = FIRST, most: float = MOST) -> float:
    """Return the seconds to wait after `failures` failures in a row, at least one."""
    return jittered(min(most, first * 2.0 ** min(max(0, failures - 1), _ENOUGH)))


class Backoff:
    """Counts one caller's failures in a row; returns how long to wait after each."""

    def __init__(self, first: float = FIRST, most: float = MOST) -> None:
        self.failures = 0
        self._first, self._most = first, most

    def failed(self) -> float:
        """Count a failure; return the seconds to wait."""
        self.failures += 1
        return pause_after(self.failures, first=self._first, most=self._most)

    def reset(self) -> None:
        """Count from one again: a try went well."""
        self.failures = 0


async def kept_running(
    act: Callable[[], Awaitable[None]],
    *,
    name: str,
    on_failure: Callable[[Exception, float], None],
    first: float = FIRST,
    most: float = MOST,
) -> NoReturn:
    """Run `act` again and again until cancelled, with a pause whenever it fails or ends.

    `on_failure` gets the failure and the seconds of the pause; if it raises, the loop ends.
    """
    backoff = Backoff(first, most)
    while True:
        began = time.monotonic()
        failure = await apart(act(), name=name)
        if time.monotonic() - began > HEALTHY:
            backoff.reset()
        pause = backoff.failed()
        on_failure(failure or PartEndedError(f"{name} ended unasked"), pause)
        await asyncio.sleep(pause)
