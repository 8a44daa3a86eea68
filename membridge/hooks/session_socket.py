"""The daemon's socket, and the heartbeat beside it that tells a hook whether the daemon is there to answer.

What a connection wants is read by `session_request`, which is loaded with the first one.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

from membridge.aio import threads
from membridge.errors import FileAccessError
from membridge.hooks.paths import BEAT_EVERY, HookPaths
from membridge.hooks.run_folder import close_run_folder, open_run_folder
from membridge.system import files

#: Connections that are worked on at once; more wait to be accepted, as many as the second number.
AT_ONCE, BACKLOG = 128, 256

#: Serves a connection in a task of the group; calls the last argument when nothing of it is left to do.
Connected = Callable[[socket.socket, asyncio.TaskGroup, Callable[[], None]], Awaitable[None]]


async def serve(paths: HookPaths, environ: Mapping[str, str], connected: Connected) -> None:
    """Accept connections and beat until cancelled.

    Errors: FileAccessError, also when socket or folder were removed; DiskFullError.
    """
    folder = await threads.run(open_run_folder, paths, environ)
    try:
        with listening(folder / paths.socket.name) as listener:
            async with asyncio.TaskGroup() as group:
                group.create_task(_beat(folder / paths.heartbeat.name, folder / paths.socket.name), name="heartbeat")
                await _accept(listener, group, connected)
    finally:
        await threads.run(close_run_folder, paths, folder)


@contextmanager
def listening(path: Path) -> Generator[socket.socket]:
    """Yield a socket that listens at `path`, for its owner only. A file that a killed daemon left there is replaced."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.settimeout(0)
        with files.translated(path):
            path.unlink(missing_ok=True)
            try:
                listener.bind(str(path))
            except OSError as error:
                if error.errno is not None:
                    raise
                raise FileAccessError(
                    f"{path} cannot be a socket: {error}", remedy="set MEMBRIDGE_STATE_DIR to a shorter path"
                ) from error
            path.chmod(0o600)
            listener.listen(BACKLOG)
        yield listener


async def _beat(heartbeat: Path, socket_file: Path) -> None:
    # In the event loop, not in a thread: it has to stop when the loop does.
    while True:
        _renew(heartbeat, socket_file)
        await asyncio.sleep(BEAT_EVERY)


def _renew(heartbeat: Path, socket_file: Path) -> None:
    with files.translated(heartbeat):
        socket_file.lstat()
        heartbeat.touch(mode=0o600)


async def _accept(listener: socket.socket, group: asyncio.TaskGroup, connected: Connected) -> None:
    loop, free = asyncio.get_running_loop(), asyncio.Semaphore(AT_ONCE)
    while True:
        await free.acquire()
        connection, _ = await loop.sock_accept(listener)
        group.create_task(_serve(connection, group, connected, free.release), name="session start")


async def _serve(
    connection: socket.socket, group: asyncio.TaskGroup, connected: Connected, free: Callable[[], None]
) -> None:
    await connected(connection, group, free)
