"""A person's Windows machine: a home of its own, and commands that see Windows."""

import asyncio
import json
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
#: Seconds that a command may take on a busy machine.
SOON = 60.0


@dataclass(slots=True)
class WindowsMachine:
    """The machine; `extra` is what its person set in the environment."""

    home: Path
    extra: dict[str, str] = field(default_factory=dict[str, str])

    @property
    def roaming(self) -> Path:
        """`%APPDATA%`."""
        return self.home / "AppData" / "Roaming"

    @property
    def local(self) -> Path:
        """`%LOCALAPPDATA%`."""
        return self.home / "AppData" / "Local"

    @property
    def loaded(self) -> Path:
        """The file with the modules that its commands loaded."""
        return self.home / "loaded"

    async def run(self, *arguments: str) -> tuple[int, str, str]:
        """Run a command; return its exit code, output and complaints."""
        self.home.mkdir(exist_ok=True)
        environment = {
            "PATH": os.environ["PATH"], "LANG": "C.UTF-8", "HOME": str(self.home), "APPDATA": str(self.roaming),
            "LOCALAPPDATA": str(self.local), "WINDOWS_LOADED": str(self.loaded), **self.extra,
        }  # fmt: skip
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.fixtures.windows", *arguments, cwd=ROOT, env=environment,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        async with asyncio.timeout(SOON):
            output, complaints = await process.communicate()
        return process.returncode or 0, output.decode(), complaints.decode()

    async def json(self, *arguments: str) -> Any:
        """Run a command that succeeds; return the document that it prints."""
        code, output, complaints = await self.run(*arguments, "--json")
        assert code == 0, output + complaints
        return json.loads(output)
