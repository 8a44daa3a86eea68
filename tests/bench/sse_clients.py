"""Clients of server-sent events in a process of their own: `python -m tests.bench.sse_clients PORT PATH COUNT KEY...`.

Says `connected` once all have their heads, then one line of JSON with seconds from publication to receipt when standard
input is closed. An item carries the instant of its publication: `"sent": SECONDS` of the machine's monotonic clock.
"""

import asyncio
import itertools
import json
import re
import sys
import time
from typing import cast

import uvloop

_SENT = re.compile(rb'"sent":([0-9.]+)')
#: Connections that are opened at once.
AT_ONCE = 20


class _Client(asyncio.Protocol):
    def __init__(self, request: bytes, delays: list[float]) -> None:
        self._request, self._delays = request, delays
        self.connected = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast("asyncio.Transport", transport).write(self._request)

    def data_received(self, data: bytes) -> None:
        now = time.monotonic()
        if not self.connected.done():
            if not data.startswith(b"HTTP/1.1 200"):
                raise SystemExit(data.decode())
            self.connected.set_result(None)
        self._delays += [now - float(sent) for sent in _SENT.findall(data)]

    def connection_lost(self, exc: Exception | None) -> None:
        raise SystemExit(f"a stream ended: {exc}")


async def _main(port: int, path: str, count: int, keys: list[str]) -> None:
    loop, delays, opening = asyncio.get_running_loop(), list[float](), asyncio.Semaphore(AT_ONCE)

    async def follow(key: str) -> None:
        request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\n\r\n".encode()
        async with opening:
            _, client = await loop.create_connection(lambda: _Client(request, delays), "127.0.0.1", port)
            await client.connected

    async with asyncio.timeout(120.0), asyncio.TaskGroup() as group:
        for key in itertools.islice(itertools.cycle(keys), count):
            group.create_task(follow(key))
    sys.stdout.write("connected\n")
    sys.stdout.flush()
    ended = asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), ended.set)
    await ended.wait()
    sys.stdout.write(json.dumps(delays))


if __name__ == "__main__":
    uvloop.run(_main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4:]))
