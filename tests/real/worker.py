"""A real claude-mem worker with a home of its own, for tests: started, asked over its HTTP API, stopped.

It runs offline and without a model; nothing of the machine's own claude-mem is read or written. Calls block: an async
test runs them by `asyncio.to_thread`.
"""

import json
import os
import select
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from tests.fixtures.ports import free_port
from tests.real.fetch import Programs, fetch

#: Seconds from the start of the process to a database that answers; 0.8 s here, a loaded board needs longer.
START_SECONDS = 60.0
#: Seconds that a stop may take before the process is killed.
STOP_SECONDS = 20.0
#: Rows of one page; the worker gives no more.
PAGE = 100


class WorkerError(Exception):
    """A worker that did not start, or answered with an error."""


@dataclass(frozen=True, slots=True)
class Worker:
    """A running worker: where it answers, which file it writes, who it is."""

    url: str
    database: Path
    pid: int
    process: "subprocess.Popen[bytes]"

    @property
    def data(self) -> Path:
        """Its data folder: database, pid file, settings."""
        return self.database.parent

    def save(self, text: str, project: str) -> int:
        """Store one memory as an observation and return its row id."""
        reply = self._request("POST", "/api/memory/save", {"text": text, "project": project})
        return int(reply["id"])

    def bring(self, rows: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
        """Import sessions, observations, summaries and prompts, as of another machine."""
        return self._request("POST", "/api/import", rows)

    def delete(self, kind: str, number: int) -> None:
        """Delete an `observation`, a `summary` or a `prompt`. Raises WorkerError when there is none."""
        self._request("DELETE", f"/api/{kind}/{number}")

    def memories(self, project: str) -> list[dict[str, Any]]:
        """Return every observation of `project` as the worker's own API gives it, newest first."""
        found: list[dict[str, Any]] = []
        while True:
            query = urlencode({"project": project, "offset": len(found), "limit": PAGE})
            page = self._request("GET", f"/api/observations?{query}")
            found += page["items"]
            if not page["hasMore"] or not page["items"]:
                return found

    def texts(self, project: str) -> set[str]:
        """Return what was given to `save` for `project`, on this worker or another."""
        return {memory["narrative"] for memory in self.memories(project)}

    def search(self, query: str, project: str) -> list[dict[str, Any]]:
        """Return the observations that the worker's full-text search finds for `query`."""
        parameters = urlencode({"query": query, "project": project, "format": "json", "limit": PAGE})
        observations: list[dict[str, Any]] = self._request("GET", f"/api/search?{parameters}")["observations"]
        return observations

    def health(self) -> dict[str, Any]:
        """Return what the worker says of itself."""
        return self._request("GET", "/api/health")

    def stop(self) -> None:
        """Ask the worker to stop and wait until its process has ended; kill it when it does not. Safe to repeat."""
        if self.process.poll() is None:
            try:
                self._request("POST", "/api/admin/shutdown", {})
                self.process.wait(STOP_SECONDS)
            except (WorkerError, subprocess.TimeoutExpired):
                self.kill()

    def kill(self) -> None:
        """End the worker and what it started at once, as a crash would."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(STOP_SECONDS)

    def _request(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        data = None if body is None else json.dumps(body).encode()
        headers = {"content-type": "application/json"}
        request = urllib.request.Request(self.url + path, data, headers, method=method)  # noqa: S310  # http, loopback
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=30) as response:
                answer: dict[str, Any] = json.load(response)
        except urllib.error.HTTPError as error:
            with error:
                raise WorkerError(f"{method} {path}: {error.code} {error.read(500)!r}") from error
        except OSError as error:
            raise WorkerError(f"{method} {path}: {error}") from error
        return answer


@contextmanager
def start_worker(home: Path) -> Generator[Worker]:
    """Start a worker whose home, data folder and port are its own, and stop it afterwards.

    `home` is created when missing; a second worker started there later finds the first one's memory. Raises FetchError
    when its programs cannot be had and WorkerError, with the end of its log, when it does not start.
    """
    programs = fetch()
    data = home / ".claude-mem"
    data.mkdir(parents=True, exist_ok=True)
    port = free_port()
    with (home / "worker.out").open("ab") as output:
        process = subprocess.Popen(
            [programs.bun, programs.worker_script, "--daemon"], cwd=home, env=_environment(home, data, port, programs),
            stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    worker = Worker(f"http://127.0.0.1:{port}", data / "claude-mem.db", process.pid, process)
    try:
        _wait_until_ready(worker, home)
        yield worker
    finally:
        worker.stop()
        _end_group(process.pid)


def environment_of(worker: Worker) -> dict[str, str]:
    """Return the variables by which claude-mem's hooks find this worker."""
    port = worker.url.rpartition(":")[2]
    every = _environment(worker.data.parent, worker.data, int(port), fetch())
    path = os.pathsep.join([every["PATH"], os.environ["PATH"]])
    return {**{name: value for name, value in every.items() if "CLAUDE" in name or "TRACK" in name}, "PATH": path}


def _environment(home: Path, data: Path, port: int, programs: Programs) -> dict[str, str]:
    return {
        "PATH": os.pathsep.join([str(programs.bun.parent), "/usr/bin", "/bin"]),
        "HOME": str(home),
        "TMPDIR": str(home),
        "LANG": "C.UTF-8",
        "CLAUDE_MEM_DATA_DIR": str(data),
        "CLAUDE_MEM_WORKER_PORT": str(port),
        "CLAUDE_MEM_CHROMA_ENABLED": "false",
        "CLAUDE_MEM_TELEMETRY": "0",
        "DO_NOT_TRACK": "1",
    }


def _wait_until_ready(worker: Worker, home: Path) -> None:
    end = time.monotonic() + START_SECONDS
    exited = os.pidfd_open(worker.pid) if hasattr(os, "pidfd_open") else None
    try:
        while True:
            try:
                if worker._request("GET", "/api/readiness")["status"] == "ready":
                    return
            except WorkerError:
                pass  # not listening yet, or 503 until its database is open
            # The worker says nowhere but over HTTP that it is ready: ask again, at once when its process ends.
            select.select([exited] if exited is not None else [], [], [], 0.05)
            if worker.process.poll() is not None or time.monotonic() > end:
                raise WorkerError(f"the worker did not start:\n{_log(worker, home)}")
    finally:
        if exited is not None:
            os.close(exited)


def _log(worker: Worker, home: Path) -> str:
    files = [home / "worker.out", *sorted((worker.data / "logs").glob("*.log"))]
    return "\n".join(file.read_text(encoding="utf-8", errors="replace")[-2000:] for file in files if file.exists())


def _end_group(group: int) -> None:
    """End what the worker left behind: it starts a child to check itself."""
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return
