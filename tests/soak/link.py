"""A loopback line between a node and a server that can be cut, frozen or slowed while it is in use."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from enum import StrEnum


class State(StrEnum):
    """What the line does."""

    OPEN = "open"
    #: Connections break and new ones are refused.
    CUT = "cut"
    #: Connections stay, nothing comes through: what a pulled cable looks like.
    FROZEN = "frozen"
    #: Every piece comes late.
    SLOW = "slow"


#: Seconds that a piece is late on a slow line.
LATE = 0.05


class Link:
    """One line. `port` is where it listens."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._state = State.OPEN
        self._changed = asyncio.Event()
        self._open: set[asyncio.StreamWriter] = set()
        self.port = 0

    @property
    def state(self) -> State:
        """What the line does now."""
        return self._state

    def set(self, state: State) -> None:
        """Change what the line does, for open connections too."""
        self._state = state
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
        if state is State.CUT:
            for writer in tuple(self._open):
                writer.transport.abort()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection."""
        self._open.add(writer)
        try:
            if self._state is State.CUT:
                return
            far_reader, far_writer = await asyncio.open_connection(*self._target)
            self._open.add(far_writer)
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._carry(reader, far_writer))
                    group.create_task(self._carry(far_reader, writer))
            finally:
                self._open.discard(far_writer)
                far_writer.transport.abort()
        except (OSError, BaseExceptionGroup):
            return
        finally:
            self._open.discard(writer)
            writer.transport.abort()

    async def _carry(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while piece := await source.read(64 << 10):
            while self._state is State.FROZEN:
                await self._changed.wait()
            if self._state is State.SLOW:
                await asyncio.sleep(LATE)
            target.write(piece)
            await target.drain()
        raise ConnectionResetError


@asynccontextmanager
async def link(host: str, port: int, *, listen: str = "127.0.0.1") -> AsyncGenerator[Link]:
    """Run a line from the address `listen` to `host`:`port` during the body."""
    made = Link(host, port)
    tasks: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(made.serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(accept, listen, 0)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        for task in tuple(tasks):
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
