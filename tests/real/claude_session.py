"""A session of the real Claude CLI: a home of its own, the plugin in it, and the stand-in of the Messages API.

Nothing of the machine's own Claude Code is read or written, and only loopback is contacted.
"""

import asyncio
import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path

from membridge.claudecode import version
from membridge.claudecode.installation import install
from membridge.claudecode.place import Place
from membridge.claudecode.plugin import SHIPPED, Reach
from membridge.hooks.paths import hook_paths, make_spool
from tests.fixtures.pace import pause
from tests.real.messages_api import MessagesApi

#: Seconds that a session may take on a loaded machine, waits of hooks included; what cannot be given up takes 30 alone.
SESSION_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Session:
    """How a session ended: its exit code, what it printed, how long it took, and the text that it sent to the model."""

    code: int
    output: str
    errors: str
    seconds: float
    sent: str


@dataclass(slots=True)
class Claude:
    """A Claude CLI in a home: which program, whose model, which other plugins, which variables."""

    program: Path
    home: Path
    api: MessagesApi
    plugins: list[Path] = field(default_factory=list[Path])
    extra: dict[str, str] = field(default_factory=dict[str, str])

    @property
    def work(self) -> Path:
        """The folder that sessions run in."""
        return self.home / "work"

    def install_hooks(self, state: Path, *, wait_seconds: float) -> None:
        """Install the plugin, as `membridge install hooks` does for the version that the program says it has."""
        paths = hook_paths(state)
        make_spool(paths)
        reach = Reach(spool=paths.spool, run=paths.run, wait_seconds=wait_seconds)
        found = version.installed(str(self.program))
        into_settings = found is not None and found < version.LOADS_FOLDERS
        install(Place(self.home / ".claude", state), SHIPPED, reach, into_settings=into_settings, replace_old=False)

    async def session(self, prompt: str) -> Session:
        """Run `claude -p` to its end."""
        self.work.mkdir(parents=True, exist_ok=True)
        before = len(self.api.asked)
        plugins = [argument for plugin in self.plugins for argument in ("--plugin-dir", str(plugin))]
        began = time.monotonic()
        code, output, errors = await self.run("-p", prompt, *plugins)
        seconds = time.monotonic() - began
        sent = [json.dumps(body["messages"], ensure_ascii=False) for body in self.api.asked[before:]]
        return Session(code, output, errors, seconds, next((text for text in sent if prompt in text), ""))

    async def run(self, *arguments: str) -> tuple[int, str, str]:
        """Run the program; return its exit code, output and errors."""
        process = await asyncio.create_subprocess_exec(
            self.program, *arguments, cwd=self.work, env=self.environment(), stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            async with asyncio.timeout(SESSION_SECONDS):
                output, errors = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        return process.returncode or 0, output.decode(), errors.decode()

    def environment(self) -> dict[str, str]:
        """Return the variables of a session."""
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "LANG": "C.UTF-8",
            "ANTHROPIC_BASE_URL": self.api.url,
            "ANTHROPIC_API_KEY": "of-nobody",
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "DISABLE_AUTOUPDATER": "1",
            "IS_SANDBOX": "1",
            **self.extra,
        }


async def events_of(state: Path, count: int) -> dict[str, dict[str, object]]:
    """Wait for `count` events in the spool, as the last one comes when the session is over; return them by name."""
    new = hook_paths(state).new
    async with asyncio.timeout(60.0):
        while len(list(new.iterdir())) < count:
            await pause()
    contents = [file.read_bytes().partition(b"\n") for file in new.iterdir()]
    return {head.decode().split(" ")[2]: json.loads(body) for head, _, body in contents}
