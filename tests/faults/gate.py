"""A loopback gate between a client and an HTTP server that picks its victims by their request line.

Beside `proxy`, which counts connections: this one loses, holds or damages what belongs to one kind of request.
"""

import asyncio
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

_HEAD = re.compile(rb"(GET|PUT|POST|DELETE|HEAD) \S+ HTTP/1\.1\r\n")


@dataclass(slots=True)
class Gate:
    """What the gate does; patterns are searched in request lines such as `PUT /bucket/key?uploads HTTP/1.1`."""

    #: Close connections as they come.
    refuse: bool = False
    #: Forward such requests and lose their answer, `losses` times.
    lose: str = ""
    losses: int = 0
    #: Flip one byte of the body of such requests, `flips` times.
    flip: str = ""
    flips: int = 0
    #: Hold the answers to such requests until `open` is set.
    hold: str = ""
    open: asyncio.Event = field(default_factory=asyncio.Event)
    held: asyncio.Event = field(default_factory=asyncio.Event)
    #: The request lines so far.
    asked: list[str] = field(default_factory=list[str])

    def request(self, data: bytes) -> bytes:
        """Note what a client sent; return what the server gets."""
        if found := _HEAD.match(data):
            self.asked.append(found[0].decode("latin-1").strip())
        start = data.find(b"\r\n\r\n") + 4 if found else 0
        if self.flips and _matches(self.flip, self.asked) and start < len(data):
            self.flips -= 1
            return data[:-1] + bytes([data[-1] ^ 1])
        return data

    async def passes(self, request: str) -> bool:
        """Return whether an answer to `request` reaches the client, when it may."""
        if self.losses and _matches(self.lose, [request]):
            self.losses -= 1
            return False
        if _matches(self.hold, [request]):
            self.held.set()
            await self.open.wait()
        return True


def _matches(pattern: str, asked: list[str]) -> bool:
    return bool(pattern and asked and re.search(pattern, asked[-1]))


@dataclass(slots=True)
class _Connection:
    """One connection of a client and its twin to the server."""

    gate: Gate
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    request: str = ""

    async def serve(self, host: str, port: int) -> None:
        """Pass bytes both ways until an end or a fault."""
        ends = [self.writer]
        try:
            if self.gate.refuse:
                return
            up_reader, up_writer = await asyncio.open_connection(host, port)
            ends.append(up_writer)
            async with asyncio.TaskGroup() as group:
                forwarding = group.create_task(self._forward(up_writer))
                await self._answer(up_reader)
                forwarding.cancel()
        except (OSError, BaseExceptionGroup):
            return
        finally:
            for end in ends:
                end.close()
            for end in ends:
                with suppress(OSError):
                    await end.wait_closed()

    async def _forward(self, up: asyncio.StreamWriter) -> None:
        while data := await self.reader.read(65536):
            passed = self.gate.request(data)
            if _HEAD.match(data):
                self.request = self.gate.asked[-1]
            up.write(passed)
            await up.drain()
        up.close()

    async def _answer(self, up: asyncio.StreamReader) -> None:
        while data := await up.read(65536):
            # An interim answer asks for the body: to lose it would lose the request.
            if not data.startswith(b"HTTP/1.1 100") and not await self.gate.passes(self.request):
                return
            self.writer.write(data)
            await self.writer.drain()


@asynccontextmanager
async def gated(endpoint: str, gate: Gate) -> AsyncGenerator[str]:
    """Run a gate in front of `endpoint`; yield its address."""
    upstream = urlsplit(endpoint)
    host, port = upstream.hostname or "", upstream.port or 80
    async with asyncio.TaskGroup() as group:
        running: list[asyncio.Task[None]] = []

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            running.append(group.create_task(_Connection(gate, reader, writer).serve(host, port)))

        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        try:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            server.close()
            for task in running:
                task.cancel()
