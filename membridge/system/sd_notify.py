"""Report the daemon's state to systemd: READY, STOPPING, WATCHDOG, as datagrams to $NOTIFY_SOCKET (sd_notify(3)).

Without systemd nothing is sent. A message that cannot be delivered is dropped: the daemon does not depend on it.
"""

import asyncio
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Notifier:
    """The socket's address, and the watchdog interval in seconds (None: no watchdog)."""

    address: str | None
    watchdog: float | None

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> "Notifier":
        """Return the notifier for this environment."""
        usec = environ.get("WATCHDOG_USEC", "")
        return cls(environ.get("NOTIFY_SOCKET") or None, int(usec) / 1e6 if usec.isdecimal() and int(usec) else None)

    def send(self, state: str) -> None:
        """Send one state, such as `READY=1`."""
        if self.address is None:
            return
        # A leading @ stands for the zero byte of Linux' abstract namespace.
        address = "\0" + self.address[1:] if self.address.startswith("@") else self.address
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as channel:
            channel.sendto(state.encode(), address)

    def ready(self) -> None:
        """Report that every part serves."""
        self.send("READY=1")

    def stopping(self) -> None:
        """Report that it is stopping: systemd shows it, and expects no watchdog message any more."""
        self.send("STOPPING=1")

    async def alive(self, ready: Callable[[], None]) -> None:
        """Report twice per watchdog interval that the event loop runs; idle without a watchdog."""
        ready()
        if self.watchdog is None:
            await asyncio.Event().wait()
            return
        while True:
            self.send("WATCHDOG=1")
            await asyncio.sleep(self.watchdog / 2)
