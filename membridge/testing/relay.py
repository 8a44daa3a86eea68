"""One TCP relay between a client and a server. It can be cut, frozen or slowed, and a `Line` may change what passes."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from enum import StrEnum

from membridge.aio.tasks import background, leaves

#: Seconds by which a slow relay delays each piece.
LATE = 0.05
_PIECE = 64 << 10


class State(StrEnum):
    """What the relay does with its connections."""

    OPEN = "open"
    #: Connections break and new ones are closed.
    CUT = "cut"
    #: Connections stay and nothing comes through: what a pulled cable looks like.
    FROZEN = "frozen"
    #: Every piece comes late.
    SLOW = "slow"


class HangUp(Exception):  # noqa: N818 - not an error: a line ends its connection by it
    """Ends a connection; the client still gets `last`."""

    def __init__(self, last: bytes = b"") -> None:
        super().__init__()
        self.last = last


class Line:
    """One connection. A subclass returns what passes instead, waits, or raises HangUp."""

    async def up(self, data: bytes) -> bytes:
        """Return what the server gets of what the client sent."""
        return data

    async def down(self, data: bytes) -> bytes:
        """Return what the client gets of what the server sent."""
        return data


class Relay:
    """A relay to `host`:`port`; `line` makes the line of each new connection, or raises HangUp to refuse it."""

    def __init__(self, host: str, port: int, line: Callable[[], Line] = Line) -> None:
        self._target, self._line = (host, port), line
        self._changed = asyncio.Event()
        self._open: set[asyncio.StreamWriter] = set()
        self.state = State.OPEN
        #: Where it listens.
        self.port = 0

    def set(self, state: State) -> None:
        """Change what the relay does, for open connections too."""
        self.state = state
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
        if state is State.CUT:
            for writer in tuple(self._open):
                writer.transport.abort()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection until either end closes it."""
        ends = [writer]
        self._open.add(writer)
        try:
            with suppress(OSError, HangUp):
                await self._carry(reader, writer, ends)
            for end in ends:
                end.close()
            for end in ends:
                with suppress(OSError):
                    await end.wait_closed()
        finally:
            for end in ends:
                self._open.discard(end)
                end.transport.abort()

    async def _carry(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, ends: list[asyncio.StreamWriter]
    ) -> None:
        if self.state is State.CUT:
            return
        line = self._line()
        far_reader, far_writer = await asyncio.open_connection(*self._target)
        ends.append(far_writer)
        self._open.add(far_writer)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(reader, far_writer, line.up))
                group.create_task(self._pump(far_reader, writer, line.down))
        except* (HangUp, OSError) as ended:
            for one in leaves(ended):
                if isinstance(one, HangUp) and one.last:
                    writer.write(one.last)

    async def _pump(
        self, source: asyncio.StreamReader, target: asyncio.StreamWriter, passed: Callable[[bytes], Awaitable[bytes]]
    ) -> None:
        while piece := await source.read(_PIECE):
            while self.state is State.FROZEN:
                await self._changed.wait()
            if self.state is State.SLOW:
                await asyncio.sleep(LATE)
            target.write(await passed(piece))
            await target.drain()
        raise HangUp


@asynccontextmanager
async def relay(
    host: str, port: int, line: Callable[[], Line] = Line, *, listen: str = "127.0.0.1"
) -> AsyncGenerator[Relay]:
    """Run a relay from the address `listen` to `host`:`port` during the body."""
    made = Relay(host, port, line)
    async with background() as group:

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            group.create_task(made.serve(reader, writer), name="relayed connection")

        server = await asyncio.start_server(accept, listen, 0)
        made.port = server.sockets[0].getsockname()[1]
        try:
            yield made
        finally:
            server.close()
