"""A headless Chromium that a test drives with pieces of JavaScript."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from membridge.system.children import tied
from tests.console.fetch import BrowserParts

DRIVER = Path(__file__).with_name("driver.mjs")
#: Seconds that one piece may take.
SOON = 60.0
#: Bytes of an answer at most.
LONGEST = 8 << 20


class BrowserError(AssertionError):
    """A piece that failed in the browser."""


@dataclass
class Browser:
    """The browser. `run` has the names of `driver.mjs`: `page`, `context`, `newPage`, `audit`, `complaints`."""

    process: asyncio.subprocess.Process
    _last: int = field(default=0, init=False)

    async def run(self, code: str, *, seconds: float = SOON, **args: object) -> Any:
        """Run the body of an async function with `args` as its names; return what it returns."""
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None
        assert stdout is not None
        self._last += 1
        stdin.write(json.dumps({"id": self._last, "code": code, "args": args}).encode() + b"\n")
        async with asyncio.timeout(seconds):
            await stdin.drain()
            answer = json.loads(await stdout.readline() or b'{"error": "the browser ended"}')
        if "error" in answer:
            raise BrowserError(answer["error"])
        return answer["value"]

    async def complaints(self) -> list[str]:
        """Return what pages complained of since this was asked: errors, warnings, what a policy blocked."""
        found: list[str] = await self.run("return complaints.splice(0)")
        return found


@asynccontextmanager
async def browsing(parts: BrowserParts) -> AsyncGenerator[Browser]:
    """Run a browser during the body."""
    process = await asyncio.create_subprocess_exec(
        *tied([parts.node, str(DRIVER), str(parts.packages), parts.chromium]),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=LONGEST,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        async with asyncio.timeout(SOON):
            assert json.loads(await process.stdout.readline())["value"] == "ready"
        yield Browser(process)
    finally:
        process.stdin.close()
        try:
            async with asyncio.timeout(SOON):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
