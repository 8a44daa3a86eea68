"""The processes of a measurement of the gateway."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from tests.bench.tasks_over_nats import ended

#: Seconds until a server answers.
SOON = 60.0


@contextmanager
def service(name: str, url: str, folder: Path, **environment: str) -> Generator[int]:
    """Run a service of Membridge as a process; yield its pid."""
    known = {"PATH": os.environ["PATH"], "HOME": str(folder), "MEMBRIDGE_NATS_URL": url, **environment}
    command = [sys.executable, "-m", "membridge.cli.main", name]
    with ended(process := subprocess.Popen(command, env=known, stderr=(folder / f"{name}.log").open("wb"))):
        yield process.pid


async def answering(port: int) -> None:
    """Wait until a server accepts connections."""
    async with asyncio.timeout(SOON):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.05)
            else:
                writer.close()
                return


def cpu(pid: int) -> float:
    """Return the processor's seconds of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
