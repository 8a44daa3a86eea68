"""Finding claude-mem's worker, and leaving it alone."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from membridge.aio.deadline import Deadline
from membridge.claudemem import worker_process
from membridge.errors import ForbiddenError, UnavailableError

#: A pid that no process has: beyond the kernel's largest.
NOBODY = 4_194_305


@asynccontextmanager
async def answering(answer: bytes) -> AsyncGenerator[tuple[int, list[str]]]:
    """Serve one HTTP answer for every request; yield the port and the request lines."""
    asked: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        asked.append(head.split(b"\r\n")[0].decode())
        writer.write(answer)
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], asked


def http(body: object, status: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\n\r\n{json.dumps(body)}".encode()


def write_pid(folder: Path, pid: int, port: int) -> None:
    (folder / "worker.pid").write_text(json.dumps({"pid": pid, "port": port}), encoding="utf-8")


async def test_without_a_pid_file_there_is_no_worker(tmp_path: Path) -> None:
    assert await worker_process.find_worker(tmp_path) is None
    (tmp_path / "worker.pid").write_text("garbage", encoding="utf-8")
    assert await worker_process.find_worker(tmp_path) is None


async def test_a_worker_that_answers_is_healthy(tmp_path: Path) -> None:
    async with answering(http({"status": "ok", "version": "13.25.3", "pid": os.getpid()})) as (port, asked):
        write_pid(tmp_path, os.getpid(), port)

        found = await worker_process.find_worker(tmp_path)

    assert found == worker_process.WorkerState(os.getpid(), port, running=True, healthy=True, version="13.25.3")
    assert asked == ["GET /api/health HTTP/1.1"]


async def test_another_process_on_the_port_is_no_healthy_worker(tmp_path: Path) -> None:
    async with answering(http({"pid": 1})) as (port, _):
        write_pid(tmp_path, os.getpid(), port)

        found = await worker_process.find_worker(tmp_path)

    assert found is not None
    assert not found.healthy


@pytest.mark.parametrize("answer", [http({}, "503 Service Unavailable"), b"", b"nonsense"])
async def test_a_worker_that_answers_badly_is_not_healthy(tmp_path: Path, answer: bytes) -> None:
    async with answering(answer) as (port, _):
        write_pid(tmp_path, os.getpid(), port)

        found = await worker_process.find_worker(tmp_path)

    assert found is not None
    assert (found.running, found.healthy) == (True, False)


async def test_a_worker_that_died_is_told_as_such(tmp_path: Path) -> None:
    write_pid(tmp_path, NOBODY, 1)

    found = await worker_process.find_worker(tmp_path)

    assert found == worker_process.WorkerState(NOBODY, 1, running=False, healthy=False)


async def test_a_worker_is_left_alone_unless_control_is_allowed(tmp_path: Path) -> None:
    deadline = Deadline.after(1)
    with pytest.raises(ForbiddenError, match="may not stop"):
        await worker_process.stop_worker(tmp_path, process_control=False, deadline=deadline)


async def test_stopping_asks_and_waits_for_the_end(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", "import time; time.sleep(60)")
    write_pid(tmp_path, process.pid, 1)

    async with asyncio.TaskGroup() as group:
        ended = group.create_task(process.wait())
        stopped = await worker_process.stop_worker(tmp_path, process_control=True, deadline=Deadline.after(10))

    assert stopped
    assert ended.result() != 0
    assert not await worker_process.stop_worker(tmp_path, process_control=True, deadline=Deadline.after(1))


async def test_a_healthy_worker_is_asked_to_shut_down(tmp_path: Path) -> None:
    async with answering(http({"pid": os.getpid()})) as (port, asked):
        write_pid(tmp_path, os.getpid(), port)

        with pytest.raises(UnavailableError, match="does not stop"):
            await worker_process.stop_worker(tmp_path, process_control=True, deadline=Deadline.after(0.3))

    assert asked[-1] == "POST /api/admin/shutdown HTTP/1.1"
