"""Runs a program for a bounded time with bounded output, in its own process group, which never outlives the call.

The environment is an allow-list, and the prompt is the standard input. After a timeout, too much output or a
cancellation the whole group is gone when this returns. If this process is killed, the program dies with it where the
system supports that.
"""

import asyncio
import os
import signal
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import cast

from membridge.system.children import tied

#: Variables of this process' environment that a child gets, by name and by prefix.
NAMES = frozenset(
    {"PATH", "HOME", "LANG", "TERM", "TMPDIR", "TZ", "USER", "SHELL", "DISABLE_AUTOUPDATER", "IS_SANDBOX",
     "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "https_proxy", "http_proxy", "no_proxy", "SSL_CERT_FILE",
     "NODE_EXTRA_CA_CERTS"}
)  # fmt: skip
BEGINNINGS = ("LC_", "ANTHROPIC_", "CLAUDE_CODE_", "CLAUDE_CONFIG_")
#: Seconds between asking a group to end and killing it.
GRACE = 5.0
#: Lines of standard error that are kept, and bytes of each.
LINES, LINE = 20, 2_048
_CHUNK = 64 << 10


class ExceededLimit(StrEnum):
    """The limit for which the worker ended a program."""

    TIME = "time"
    OUTPUT = "output"


@dataclass(frozen=True, slots=True)
class Program:
    """What to run: command, folder, environment, and bounds in seconds and bytes."""

    command: Sequence[str]
    folder: Path
    environment: Mapping[str, str]
    seconds: float
    max_output: int
    grace: float = GRACE


@dataclass(frozen=True, slots=True)
class ProgramResult:
    """How a program ended: its code (negative: a signal), output, last lines of standard error, limit it exceeded."""

    code: int
    output: bytes
    errors: tuple[str, ...]
    exceeded: ExceededLimit | None = None


def allowed(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of `environment` that a child gets."""
    return {name: value for name, value in environment.items() if name in NAMES or name.startswith(BEGINNINGS)}


async def run(program: Program, text: str, *, line: Callable[[str], None]) -> ProgramResult:
    """Run it with `text` on standard input; `line` is told each line of standard error. Raises OSError."""
    process = await asyncio.create_subprocess_exec(
        *tied(program.command),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=program.folder,
        env=dict(program.environment),
        start_new_session=True,
    )
    output, errors = bytearray(), deque[str](maxlen=LINES)
    exceeded: ExceededLimit | None = None
    try:
        async with asyncio.TaskGroup() as group:
            feeding = group.create_task(_feed(process, text.encode()), name="standard input")
            reading = group.create_task(_read(process, output, program.max_output), name="standard output")
            listening = group.create_task(_listen(process, errors, line), name="standard error")
            try:
                async with asyncio.timeout(program.seconds):
                    if await reading:
                        await process.wait()
                    else:
                        exceeded = ExceededLimit.OUTPUT
            except TimeoutError:
                exceeded = ExceededLimit.TIME
            if exceeded is not None:
                await _end(process, program.grace)
            # A grandchild may keep the pipes open for ever.
            _signal(process, signal.SIGKILL)
            await asyncio.wait({listening, reading}, timeout=1.0)
            for task in (feeding, listening, reading):
                task.cancel()
    finally:
        _signal(process, signal.SIGKILL)
        await process.wait()
        _close(process)
    return ProgramResult(process.returncode or 0, bytes(output), tuple(errors), exceeded)


async def _feed(process: asyncio.subprocess.Process, body: bytes) -> None:
    stdin = process.stdin
    if stdin is None:
        return
    # A program may end, or close its input, before it has read everything.
    with suppress(BrokenPipeError, ConnectionResetError):
        stdin.write(body)
        await stdin.drain()
    stdin.close()


async def _read(process: asyncio.subprocess.Process, output: bytearray, most: int) -> bool:
    """Read standard output to its end; return False once it exceeds `most` bytes."""
    stdout = process.stdout
    while stdout is not None and (chunk := await stdout.read(_CHUNK)):
        output += chunk
        if len(output) > most:
            return False
    return True


async def _listen(process: asyncio.subprocess.Process, errors: deque[str], line: Callable[[str], None]) -> None:
    stderr, rest = process.stderr, b""
    while stderr is not None and (chunk := await stderr.read(_CHUNK)):
        *whole, rest = (rest + chunk).split(b"\n")
        rest = rest[:LINE]
        for one in whole:
            _tell(one, errors, line)
    if rest:
        _tell(rest, errors, line)


def _tell(raw: bytes, errors: deque[str], line: Callable[[str], None]) -> None:
    text = raw[:LINE].decode("utf-8", "replace").rstrip()
    if text:
        errors.append(text)
        line(text)


async def _end(process: asyncio.subprocess.Process, grace: float) -> None:
    """Ask the group to end, and kill it after `grace` seconds."""
    _signal(process, signal.SIGTERM)
    try:
        async with asyncio.timeout(grace):
            await process.wait()
    except TimeoutError:
        _signal(process, signal.SIGKILL)
        await process.wait()


def _close(process: asyncio.subprocess.Process) -> None:
    """Close our ends of the pipes: asyncio leaves one open that was not read to its end or that a grandchild holds."""
    # asyncio has no public way to do that.
    cast("asyncio.SubprocessTransport", getattr(process, "_transport")).close()  # noqa: B009


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    # The group outlives its leader while a grandchild lives.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)
