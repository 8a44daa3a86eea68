"""An EIO anywhere while a daemon or its server starts and stops is an error with a remedy or a line in its log.

It never is a traceback, never another daemon's trouble, and the next start is as if it had not been.
"""

import asyncio
import errno
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from membridge.aio.deadline import Deadline
from membridge.bus.connection import Bus
from membridge.bus.rpc import RpcClient
from membridge.bus.service import Call, Endpoint, ServiceIdentity, serve
from membridge.embedded.nats_server import NatsOptions, NatsServer, Supervisor
from membridge.errors import MembridgeError, RemoteError
from membridge.node import daemon
from membridge.settings import Settings, load
from schemas import subjects
from schemas.errors import ErrorCode
from schemas.node import Empty, StatusReply
from tests.fixtures.broken_disk import DISK
from tests.fixtures.heard import PATIENCE


@pytest.fixture
def settings(tmp_path: Path, nats_server: NatsServer) -> Settings:
    return load({"MEMBRIDGE_NATS_URL": nats_server.url, "LEADERSHIP_LEASE_SECONDS": "3"}, tmp_path / "home")


async def test_a_daemon_starts_or_says_what_the_disk_says(settings: Settings, bus: Bus) -> None:
    number, refused = 0, 0
    while True:
        number += 1
        DISK.arm(settings.node.state_dir, number)
        error = await once(settings)
        failed = DISK.disarm()
        if error is not None:
            refused += 1
            check(error, failed)
        if not failed:
            break
    assert refused > 1
    assert error is None


async def test_a_server_starts_or_says_what_the_disk_says_and_one_that_runs_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    number, refused = 0, 0
    while True:
        number += 1
        DISK.arm(tmp_path / "nats", number)
        try:
            async with supervised(tmp_path / "nats"):
                pass
        except* MembridgeError as failures:
            refused += 1
            (error,) = failures.exceptions
            check(error, DISK.failed)
        if not DISK.disarm():
            break
    assert refused > 0
    monkeypatch.setattr("membridge.embedded.nats_server.RESTART_FIRST", 0.01)
    async with supervised(tmp_path / "nats") as (supervisor, ready):
        ready.clear()
        first = supervisor.server
        assert first is not None
        DISK.arm(tmp_path / "nats", 1)
        os.kill(first.pid, 9)
        await ready.wait()
        assert DISK.disarm()
        assert supervisor.server is not None
        assert supervisor.server.pid != first.pid


async def test_a_request_is_answered_with_what_the_disk_says(bus: Bus) -> None:
    async def status(request: Empty, call: Call) -> StatusReply:
        del request, call
        # In a group, as an operation fails in which two things are done at once.
        async with asyncio.TaskGroup() as group:
            group.create_task(broken())
            group.create_task(asyncio.Event().wait())
        raise AssertionError

    async def broken() -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), "/memory/journal.db")

    subject = subjects.STATUS.at(project="0" * 16, node="a")
    async with serve(
        bus, ServiceIdentity("membridge-node", "0.1.0", "test"), [Endpoint(subjects.STATUS, subject, status)]
    ):
        with pytest.raises(RemoteError, match=r"/memory/journal\.db: Input/output error") as told:
            await RpcClient(bus).request(subjects.STATUS, Empty(), project="0" * 16, node="a")
    assert told.value.code is ErrorCode.UNAVAILABLE
    assert "dmesg" in told.value.remedy


def check(error: BaseException, failed: str) -> None:
    """Fail unless it is an error with a remedy that says what the disk said."""
    assert isinstance(error, MembridgeError), (error, failed)
    assert error.remedy, (error.message, failed)
    assert "Input/output error" in error.message, failed
    assert "\n" not in error.message


async def once(settings: Settings) -> Exception | None:
    """Start a daemon and stop it once it serves; return what it failed with."""
    stopping = asyncio.Event()
    try:
        async with Deadline.after(PATIENCE).scope("a start and a stop"):
            await daemon.run(settings, {}, stopping=stopping, on_ready=stopping.set)
    except Exception as error:  # noqa: BLE001 - what it is, is the question
        return error
    return None


@asynccontextmanager
async def supervised(directory: Path) -> AsyncGenerator[tuple[Supervisor, asyncio.Event]]:
    """Run a supervised server during the body, which begins when it is ready."""
    supervisor, ready = Supervisor(NatsOptions(directory, port=-1)), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        part = group.create_task(supervisor.run(ready.set))
        try:
            async with asyncio.timeout(PATIENCE):
                await ready.wait()
            yield supervisor, ready
        finally:
            part.cancel()
