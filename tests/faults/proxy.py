"""A loopback proxy between a client and an HTTP server that can answer for it, cut it off, or lose its answers."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

_BUSY = b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


@dataclass(slots=True)
class Faults:
    """What the proxy does; each number counts connections down."""

    busy: int = 0
    #: Cut the connection after this many bytes of answers, `cuts` times.
    cut_after: int = 0
    cuts: int = 0
    #: Forward requests and lose the answer.
    lose_answers: int = 0
    #: Connections so far.
    seen: int = 0


@asynccontextmanager
async def proxy(endpoint: str, faults: Faults) -> AsyncGenerator[str]:
    """Run a proxy in front of `endpoint`; yield its address."""
    upstream = urlsplit(endpoint)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        faults.seen += 1
        ends = [writer]
        try:
            if faults.busy > 0:
                faults.busy -= 1
                await reader.read(65536)
                writer.write(_BUSY)
                await writer.drain()
                return
            up_reader, up_writer = await asyncio.open_connection(upstream.hostname, upstream.port)
            ends.append(up_writer)
            async with asyncio.TaskGroup() as group:
                forward = group.create_task(_pump(reader, up_writer))
                await _answers(up_reader, writer, faults)
                forward.cancel()
        except (OSError, BaseExceptionGroup):
            return
        finally:
            for end in ends:
                end.close()
            for end in ends:
                with suppress(OSError):
                    await end.wait_closed()

    running: list[asyncio.Task[None]] = []
    async with asyncio.TaskGroup() as group:
        server = await asyncio.start_server(
            lambda reader, writer: running.append(group.create_task(serve(reader, writer))), "127.0.0.1", 0
        )
        async with server:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        for task in running:
            task.cancel()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


async def _answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, faults: Faults) -> None:
    passed = 0
    while data := await reader.read(65536):
        if faults.lose_answers > 0:
            faults.lose_answers -= 1
            return
        if faults.cuts > 0 and passed + len(data) > faults.cut_after:
            faults.cuts -= 1
            writer.write(data[: faults.cut_after - passed])
            await writer.drain()
            return
        passed += len(data)
        writer.write(data)
        await writer.drain()
