"""Find claude-mem's worker, check its health and, only if allowed, stop it.

Found by its pid file and health URL on this machine. A sync needs none of this: the worker keeps running.
"""

import asyncio
import json
import os
import signal
from dataclasses import dataclass
from pathlib import Path

from membridge.aio.deadline import Deadline
from membridge.errors import ForbiddenError, UnavailableError
from membridge.system.pidfile import is_alive

#: Seconds within which a healthy worker answers.
PATIENCE = 2.0
#: Most bytes of an answer that are read.
_MAX_ANSWER = 1 << 20
_PID_FILE = "worker.pid"
_SETTINGS = "settings.json"


@dataclass(frozen=True, slots=True)
class WorkerState:
    """A worker that its pid file names; `healthy` when it answered, and the `version` in its answer."""

    pid: int
    port: int
    running: bool
    healthy: bool
    version: str | None = None


async def find_worker(data_dir: Path, *, deadline: Deadline | None = None) -> WorkerState | None:
    """Return the worker whose pid file lies in claude-mem's data folder; None when there is no such file."""
    within = (deadline or Deadline.after(PATIENCE)).sooner(PATIENCE)
    named = _read_object(data_dir / _PID_FILE)
    pid = named.get("pid")
    if not isinstance(pid, int) or pid <= 1:
        return None
    port, host = _address(data_dir, named)
    try:
        status, answer = await _request("GET", host, port, "/api/health", within)
    except UnavailableError:
        return WorkerState(pid, port, running=is_alive(pid), healthy=False)
    version = answer.get("version")
    return WorkerState(
        pid=pid,
        port=port,
        running=is_alive(pid),
        healthy=status == 200 and answer.get("pid", pid) == pid,
        version=version if isinstance(version, str) else None,
    )


async def stop_worker(data_dir: Path, *, process_control: bool, deadline: Deadline) -> bool:
    """Ask the worker to stop and wait until it has; return whether there was one.

    Errors: ForbiddenError unless `process_control`, UnavailableError when it still runs at the deadline.
    """
    _check_allowed(process_control=process_control)
    found = await find_worker(data_dir, deadline=deadline)
    if found is None or not found.running:
        return False
    if found.healthy:
        host = _address(data_dir, {})[1]
        await _request("POST", host, found.port, "/api/admin/shutdown", deadline)
    else:
        os.kill(found.pid, signal.SIGTERM)
    while is_alive(found.pid):
        if deadline.passed:
            raise UnavailableError(
                f"claude-mem's worker (pid {found.pid}) does not stop", remedy=f"end it with `kill -9 {found.pid}`"
            )
        await asyncio.sleep(0.05)
    return True


def _check_allowed(*, process_control: bool) -> None:
    if not process_control:
        raise ForbiddenError(
            "membridge may not stop claude-mem's worker",
            remedy="set MEMBRIDGE_ALLOW_PROCESS_CONTROL=1 to allow it",
        )


def _address(data_dir: Path, named: dict[str, object]) -> tuple[int, str]:
    settings = _read_object(data_dir / _SETTINGS)
    nested = settings.get("env")
    values: dict[str, object] = {**settings, **(_as_object(nested))}
    port = named.get("port", values.get("CLAUDE_MEM_WORKER_PORT"))
    host = values.get("CLAUDE_MEM_WORKER_HOST")
    number = int(port) if isinstance(port, int | str) and str(port).isdigit() else 0
    # A worker that listens everywhere is asked on loopback.
    return number, host if isinstance(host, str) and host not in {"", "0.0.0.0", "::"} else "127.0.0.1"  # noqa: S104 - compared, not bound


async def _request(method: str, host: str, port: int, path: str, deadline: Deadline) -> tuple[int, dict[str, object]]:
    try:
        async with asyncio.timeout(deadline.remaining()):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                head = (
                    f"{method} {path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
                )
                writer.write(head.encode())
                await writer.drain()
                answer = await _read_answer(reader)
            finally:
                writer.close()
    except (OSError, TimeoutError) as error:
        raise UnavailableError(
            f"claude-mem's worker does not answer on {host}:{port}", remedy="restart Claude Code, which starts it again"
        ) from error
    return answer


async def _read_answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, object]]:
    head, _, body = (await reader.read(_MAX_ANSWER)).partition(b"\r\n\r\n")
    while rest := await reader.read(_MAX_ANSWER):
        body += rest
        if len(body) > _MAX_ANSWER:
            break
    words = head.split(None, 2)
    status = int(words[1]) if len(words) > 1 and words[1].isdigit() else 0
    start, end = body.find(b"{"), body.rfind(b"}")
    return status, _parsed(body[start : end + 1])


def _read_object(path: Path) -> dict[str, object]:
    try:
        return _parsed(path.read_bytes())
    except OSError:
        return {}


def _parsed(text: bytes) -> dict[str, object]:
    try:
        value: object = json.loads(text)
    except ValueError:
        return {}
    return _as_object(value)


def _as_object(value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        return {}
    return {str(name): member for name, member in value.items()}  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType] - JSON of a foreign program
