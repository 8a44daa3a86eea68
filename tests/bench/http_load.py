"""Load over HTTP from a process of its own: `python -m tests.bench.http_load < PLAN`, its numbers as JSON on stdout.

Each of the connections sends its next request when it has the answer to the last one. The requests are bytes that were
made before, so that this process costs as little as it can beside the server that it measures.
"""

import asyncio
import json
import sys
import time
from collections.abc import Sequence
from typing import Any, cast

import uvloop

#: Seconds before the measurement, in which connections are opened and caches filled.
WARM = 1.0


class _Connection(asyncio.Protocol):
    """Sends requests until it is told to stop."""

    def __init__(self, requests: Sequence[bytes], at: int, step: int, status: bytes) -> None:
        self._requests, self._at, self._step, self._status = requests, at % len(requests), step, status
        self._received, self._missing, self._sent = b"", 0, 0.0
        self.delays: list[float] = []
        self.answered = 0
        self.running = True
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._send()

    def _send(self) -> None:
        request = self._requests[self._at]
        self._at = (self._at + self._step) % len(self._requests)
        self._sent = time.perf_counter()
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        if self._missing:
            self._missing -= len(data)
        else:
            self._received += data
            head = self._received.find(b"\r\n\r\n")
            if head < 0:
                return
            lower = self._received[:head].lower()
            if not lower.startswith(self._status):
                self.done.set_exception(RuntimeError(self._received.decode()))
                self._transport.close()
                return
            length = lower.index(b"content-length:") + 15
            end = lower.find(b"\r\n", length)
            size = int(lower[length : end if end > 0 else len(lower)])
            self._missing = head + 4 + size - len(self._received)
            self._received = b""
        if not self._missing:
            self.answered += 1
            self.delays.append(time.perf_counter() - self._sent)
            if self.running:
                self._send()
            elif not self.done.done():
                self.done.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(ConnectionError(f"the server ended a connection: {exc}"))


async def _main(plan: dict[str, Any]) -> None:
    loop = asyncio.get_running_loop()
    requests = [one.encode() for one in plan["requests"]]
    status, count = f"http/1.1 {plan['status']}".encode(), plan["connections"]
    made = [
        (await loop.create_connection(lambda n=n: _Connection(requests, n, count, status), "127.0.0.1", plan["port"]))[
            1
        ]
        for n in range(count)
    ]
    await asyncio.sleep(WARM)
    for one in made:
        one.delays.clear()
    began = time.perf_counter()
    await asyncio.sleep(plan["seconds"])
    took = time.perf_counter() - began
    delays = sorted(delay for one in made for delay in one.delays)
    for one in made:
        one.running = False
    async with asyncio.timeout(30.0):
        for one in made:
            await one.done
    found = {
        "sent": sum(one.answered for one in made),
        "rate": len(delays) / took,
        "p50": delays[len(delays) // 2],
        "p99": delays[int(0.99 * len(delays))],
    }
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    uvloop.run(_main(json.load(sys.stdin)))
