"""A connection to the daemon's socket is answered, whatever comes over it, and within the time."""

import asyncio
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from membridge.aio.tasks import background
from membridge.errors import FileAccessError
from membridge.hooks import run_folder, session_request, session_socket
from membridge.hooks.paths import HookPaths, hook_paths
from membridge.hooks.session_request import MOST_BODY, MOST_HEAD, Answering, answer
from membridge.hooks.session_socket import AT_ONCE, listening, serve
from schemas.hooks import SessionStartReply, SessionStartRequest
from tests.fixtures.hooks import ask, post, raw
from tests.fixtures.pace import pause


async def echo(request: SessionStartRequest) -> SessionStartReply:
    return SessionStartReply(context=f"{request.session_id} in {request.cwd}")


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HookPaths:
    monkeypatch.setattr(run_folder, "SHARED_MEMORY", tmp_path / "none")
    return hook_paths(tmp_path / "s")


@asynccontextmanager
async def answering(
    paths: HookPaths, work: Callable[[SessionStartRequest], Awaitable[SessionStartReply]] = echo, patience: float = 20.0
) -> AsyncGenerator[None]:
    served = Answering(work, lambda: SessionStartReply(context="late"), patience)

    async def connected(connection: socket.socket, group: asyncio.TaskGroup, free: Callable[[], None]) -> None:
        await answer(connection, group, served, free)

    async with background() as group:
        group.create_task(serve(paths, {}, connected))
        async with asyncio.timeout(20.0):
            while not paths.heartbeat.exists():
                await pause()
        yield


async def test_a_session_start_is_answered(paths: HookPaths) -> None:
    async with answering(paths):
        assert await ask(paths, more="unknown") == (
            200,
            {"context": f"{'7b0c6d1e-2f7a-4a37-9d0e-0a5b0f1c2d3e'} in /work"},
        )


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /session-start HTTP/1.1\r\n\r\n", 405),
        (b"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}", 404),
        (b"POST /session-start HTTP/1.1\r\n\r\n{}", 411),
        (b"POST /session-start HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 411),
        (b"POST /session-start HTTP/1.1\r\nContent-Length: -2\r\n\r\n{}", 400),
        (b"POST /session-start HTTP/1.1\r\nContent-Length: 1\r\n\r\n{", 400),
        (b"POST /session-start HTTP/1.1\r\nContent-Length: 14\r\n\r\n{\"cwd\": [1, 2]", 400),
        (b"POST /session-start HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % (MOST_BODY + 1), 413),
        (b"POST /session-start HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n", 413),
        (b"nonsense\r\n\r\n", 400),
        (b"\0\xff\r\n\r\n", 400),
        (b"POST /session-start HTTP/1.1\r\nX: " + b"x" * (2 * MOST_HEAD), 431),
    ],
)  # fmt: skip
async def test_what_is_not_a_session_start_is_refused_and_the_next_one_answered(
    paths: HookPaths, request_: bytes, status: int
) -> None:
    async with answering(paths):
        try:
            assert await raw(paths, request_) == (status, b'{"context":null}')
        except ConnectionResetError:
            # What was sent beyond a head that is too long is not read, and may take the answer with it.
            assert status == 431
        assert (await ask(paths))[0] == 200


async def test_work_that_takes_too_long_is_left_behind_and_answered_in_time(paths: HookPaths) -> None:
    ended = asyncio.Event()

    async def never(request: SessionStartRequest) -> SessionStartReply:
        try:
            return await asyncio.Event().wait() and SessionStartReply()
        finally:
            ended.set()

    async with answering(paths, never, patience=0.2):
        assert await ask(paths) == (200, {"context": "late"})
        async with asyncio.timeout(20.0):
            await ended.wait()


async def test_work_that_fails_gets_nothing_and_harms_nothing_else(paths: HookPaths) -> None:
    async def fails_once(request: SessionStartRequest) -> SessionStartReply:
        if request.cwd == "/fails":
            raise ValueError("a fault")
        return await echo(request)

    async with answering(paths, fails_once):
        assert await ask(paths, cwd="/fails") == (500, {"context": None})
        assert (await ask(paths))[0] == 200


async def test_clients_that_say_nothing_or_hang_up_keep_no_other_from_being_answered(
    paths: HookPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_request, "SEND", 0.2)
    async with answering(paths):
        silent = [await asyncio.open_unix_connection(str(paths.socket)) for _ in range(AT_ONCE + 10)]
        for _, writer in silent[::2]:
            writer.close()
        assert (await ask(paths))[0] == 200
        for _, writer in silent:
            writer.close()


async def test_a_body_that_comes_in_pieces_is_read_to_its_end(paths: HookPaths) -> None:
    async with answering(paths):
        reader, writer = await asyncio.open_unix_connection(str(paths.socket))
        for piece in (b"POST /session-start HT", b"TP/1.1\r\ncontent-length: 17\r", b'\n\r\n{"cwd": ', b'"/piece"}'):
            writer.write(piece)
            await writer.drain()
            await pause()
        assert (await reader.read()).endswith(b'{"context":" in /piece"}')
        writer.close()


async def test_a_hundred_at_once_are_all_answered(paths: HookPaths) -> None:
    async with answering(paths):
        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(post(paths, f'{{"session_id": "s-{number}"}}')) for number in range(100)]
        assert [task.result()[1]["context"] for task in asked] == [f"s-{number} in " for number in range(100)]


async def test_a_file_that_a_killed_daemon_left_is_replaced(paths: HookPaths) -> None:
    paths.run.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(paths.socket))
    assert paths.socket.is_socket()
    async with answering(paths):
        assert (await ask(paths))[0] == 200
    assert not paths.socket.exists()
    assert not paths.heartbeat.exists()


async def test_a_socket_that_was_removed_ends_the_part_which_begins_anew(
    paths: HookPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_socket, "BEAT_EVERY", 0.05)

    async def removed() -> None:
        async with answering(paths):
            paths.socket.unlink()
            await asyncio.Event().wait()

    with pytest.raises(FileAccessError):
        await removed()


def test_a_path_that_is_too_long_for_a_socket_says_what_to_do(tmp_path: Path) -> None:
    folder = tmp_path / ("d" * 120)
    folder.mkdir()
    with pytest.raises(FileAccessError, match="cannot be a socket") as failed, listening(folder / "hooks.sock"):
        pass
    assert "MEMBRIDGE_STATE_DIR" in failed.value.remedy
