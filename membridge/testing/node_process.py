"""A node as a process with its own home, for the demonstration and the tests."""

import asyncio
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from membridge.system.children import tied

#: Seconds a node may take to stop before it is killed.
STOP = 15.0
#: The demonstration's node settings: quicker than a real node's, so that a minute is enough.
QUICK = {
    "MEMBRIDGE_QUIET_SECONDS": "0.3",
    "LEADERSHIP_LEASE_SECONDS": "3",
    "MEMBRIDGE_LOG_FORMAT": "json",
    "MEMBRIDGE_LOG_LEVEL": "info",
}


@dataclass(slots=True)
class NodeProcess:
    """A node with its own home. `nats_url` is the server that all machines share, `extra` more of its settings.

    `through` is a command that starts each of its processes, none by default.
    """

    name: str
    home: Path
    nats_url: str
    project: str
    extra: Mapping[str, str] = field(default_factory=dict[str, str])
    through: tuple[str, ...] = ()
    process: asyncio.subprocess.Process | None = field(default=None, init=False)

    @property
    def database(self) -> Path:
        """This machine's claude-mem database."""
        return self.home / ".claude-mem" / "claude-mem.db"

    @property
    def log(self) -> Path:
        """What its daemon wrote."""
        return self.home / "node.log"

    def environment(self) -> Mapping[str, str]:
        """Return a clean environment: no variable of the calling shell reaches the node."""
        return {
            "HOME": str(self.home),
            "PATH": os.environ.get("PATH", os.defpath),
            "LANG": "C.UTF-8",
            "MEMBRIDGE_NATS_URL": self.nats_url,
            "MEMBRIDGE_NODE_ID": self.name,
            "CLAUDE_PROJECT_ID": self.project,
            # Machines of one host cannot have the same port.
            "MEMBRIDGE_GATEWAY": "0",
            **QUICK,
            **self.extra,
        }

    async def start(self, kind: str = "node") -> None:
        """Start the daemon: `node`, or `up` with a server of its own."""
        self.database.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as output:
            # It ends with what started it: a demonstration that is killed leaves no daemon behind.
            self.process = await asyncio.create_subprocess_exec(
                *tied([*self.through, sys.executable, "-m", "membridge.cli.main", kind]),
                stdout=output,
                stderr=output,
                env=self.environment(),
            )

    async def command(self, *arguments: str) -> tuple[int, str]:
        """Run a `membridge` command on this machine; return its exit code and output."""
        process = await asyncio.create_subprocess_exec(
            *self.through,
            sys.executable,
            "-m",
            "membridge.cli.main",
            *arguments,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=self.environment(),
        )
        output, _ = await process.communicate()
        return process.returncode or 0, output.decode(errors="replace")

    async def write(self, count: int, label: str) -> None:
        """Let this machine's agent learn `count` things."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "membridge.testing.writer",
            str(self.database),
            str(count),
            label,
            env=self.environment(),
        )
        if await process.wait():
            raise RuntimeError(f"the writer on {self.name} failed")

    async def kill(self) -> None:
        """End the daemon as a power cut would."""
        if self.process is not None and self.process.returncode is None:
            self.process.send_signal(signal.SIGKILL)
            await self.process.wait()

    async def stop(self) -> None:
        """End the daemon as systemd would; kill it when it takes too long."""
        process = self.process
        if process is None or process.returncode is not None:
            return
        process.terminate()
        try:
            async with asyncio.timeout(STOP):
                await process.wait()
        except TimeoutError:
            await self.kill()
