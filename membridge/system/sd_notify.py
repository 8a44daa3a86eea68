"""Tell systemd how the daemon is: READY, STOPPING, WATCHDOG, as datagrams to $NOTIFY_SOCKET (sd_notify(3)).

Without systemd nothing is sent. A message that cannot be delivered is dropped: the daemon's work does not depend on it.
"""

import asyncio
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Notifier:
    """Where to tell it, and every how many seconds systemd wants a sign of life (None: never)."""

    address: str | None
    watchdog: float | None

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> "Notifier":
        """Return the notifier that the environment asks for."""
        usec = environ.get("WATCHDOG_USEC", "")
        return cls(environ.get("NOTIFY_SOCKET") or None, int(usec) / 1e6 if usec.isdecimal() and int(usec) else None)

    def tell(self, state: str) -> None:
        """Send one state, such as `READY=1`."""
        if self.address is None:
            return
        # A leading @ stands for the zero byte of Linux' abstract namespace.
        address = "\0" + self.address[1:] if self.address.startswith("@") else self.address
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as channel:
            channel.sendto(state.encode(), address)

    def ready(self) -> None:
        """Say that all of it serves."""
        self.tell("READY=1")

    def stopping(self) -> None:
        """Say that it begins to stop: systemd shows it, and expects no more of it."""
        self.tell("STOPPING=1")

    async def alive(self, ready: Callable[[], None]) -> None:
        """Be the part that says every half watchdog interval that the event loop turns; idle without a watchdog."""
        ready()
        if self.watchdog is None:
            await asyncio.Event().wait()
            return
        while True:
            self.tell("WATCHDOG=1")
            await asyncio.sleep(self.watchdog / 2)
