"""Deadline: one monotonic instant, made by the caller and passed down.

A function that receives a deadline uses it and sets no timeout of its own beside it.
"""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from membridge.errors import DeadlineExceededError


@dataclass(frozen=True, slots=True)
class Deadline:
    """An instant on `time.monotonic()`'s clock."""

    at: float

    @classmethod
    def after(cls, seconds: float) -> "Deadline":
        """Return the deadline `seconds` from now."""
        return cls(time.monotonic() + seconds)

    def remaining(self) -> float:
        """Return the seconds left, never less than zero."""
        return max(0.0, self.at - time.monotonic())

    def sooner(self, seconds: float) -> "Deadline":
        """Return the nearer of this deadline and the one `seconds` from now."""
        return Deadline(min(self.at, time.monotonic() + seconds))

    @property
    def passed(self) -> bool:
        """Whether the instant has passed."""
        return time.monotonic() >= self.at

    def check(self, what: str) -> None:
        """Raise DeadlineExceededError naming `what` if the instant has passed: for threads, which run on."""
        if self.passed:
            raise DeadlineExceededError(f"{what} took too long")

    @asynccontextmanager
    async def scope(self, what: str) -> AsyncGenerator[None]:
        """Cancel the body when the instant comes, and raise DeadlineExceededError naming `what`."""
        limit = asyncio.timeout(self.remaining())
        try:
            async with limit:
                yield
        except TimeoutError as error:
            if limit.expired():
                raise DeadlineExceededError(f"{what} took too long") from error
            raise


async def comes_within(event: asyncio.Event, seconds: float | None) -> bool:
    """Wait for `event` for at most `seconds`, without limit for None; return whether it came."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True


async def readable(descriptor: int, seconds: float | None) -> bool:
    """Wait until `descriptor` can be read, for at most `seconds`, without limit for None; return whether it can."""
    loop, came = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(descriptor, came.set)
    try:
        return await comes_within(came, seconds)
    finally:
        loop.remove_reader(descriptor)
