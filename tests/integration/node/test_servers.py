"""Servers that die or forget under whole running nodes: what the nodes do then, and that nothing is lost."""

import asyncio
import json
import os
import shutil
import signal
import socket
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from membridge.bus.connection import Bus, connect
from membridge.bus.options import BusOptions
from membridge.claudemem.memory import memory_rows
from membridge.cli.demonstration.machine import Machine
from membridge.deadline import Deadline
from membridge.embedded.nats_server import start_nats
from membridge.objectstore.remote import S3Options
from schemas.leadership import Role
from tests.fixtures.machines import PROJECT, SAMPLE, SOON, command, until
from tests.fixtures.nats import QUICK

Status = dict[str, Any]


class Forgetful:
    """A server on one port that can lose all that it keeps."""

    def __init__(self, directory: Path) -> None:
        self._directory, self._stack = directory, ExitStack()
        self.url = self._stack.enter_context(start_nats(directory)).url

    def stop(self) -> None:
        self._stack.close()

    def forget(self) -> None:
        """Stop, lose the store, start again."""
        self.stop()
        shutil.rmtree(self._directory)
        self._stack.enter_context(start_nats(self._directory, port=int(self.url.rpartition(":")[2])))


@pytest.fixture
def forgetful(tmp_path: Path) -> Generator[Forgetful]:
    server = Forgetful(tmp_path / "nats")
    yield server
    server.stop()


@pytest.fixture
async def watching(forgetful: Forgetful) -> AsyncGenerator[Bus]:
    options = BusOptions(urls=(forgetful.url,), name="test", pace=QUICK)
    async with connect(options, deadline=Deadline.after(5.0)) as bus:
        yield bus


def same(*machines: Machine) -> bool:
    first, *others = (memory_rows(machine.database) for machine in machines)
    return all(other == first for other in others)


def count(machine: Machine) -> int:
    return sum(map(len, memory_rows(machine.database).values()))


@pytest.mark.parametrize("kept_in", ["s3", "jetstream"])
async def test_a_wiped_nats_is_filled_again_by_running_nodes(
    forgetful: Forgetful, watching: Bus, tmp_path: Path, s3_options: S3Options, kept_in: str
) -> None:
    extra: dict[str, str] = {}
    if kept_in == "s3":
        extra = {
            "MINIO_ENDPOINT": s3_options.endpoint,
            "MINIO_ACCESS_KEY": s3_options.access_key,
            "MINIO_SECRET_KEY": s3_options.secret_key,
            "MINIO_BUCKET": s3_options.bucket,
        }
    a = Machine("a", tmp_path / "a", forgetful.url, PROJECT, extra=extra)
    b = Machine("b", tmp_path / "b", forgetful.url, PROJECT, extra=extra)
    a.database.parent.mkdir(parents=True)
    await asyncio.to_thread(shutil.copyfile, SAMPLE, a.database)
    try:
        await a.start()
        first = await until(watching, a, lambda seen: seen.project.mirror_seq >= 1)
        await b.start()
        await until(watching, b, lambda seen: seen.project.mirror_seq >= 1)
        await a.write(3, "before")
        before = await until(watching, b, lambda seen: seen.project.mirror_seq >= 2)
        await asyncio.to_thread(forgetful.forget)
        await b.write(3, "written on b without a server")
        await a.write(3, "written on a without a server")
        total = count(a) + 4
        # The same node leads again under a higher epoch, and numbers go on.
        # What is left of its old term it may use; then a new one begins above it.
        await until(
            watching,
            a,
            lambda seen: (
                seen.project.role is Role.PRIMARY
                and seen.project.head_seq > before.project.mirror_seq
                and seen.project.epoch > first.project.epoch
            ),
        )
        await until(
            watching,
            b,
            lambda seen: (
                (seen.project.unsynced, seen.project.lag) == (0, 0) and sum(seen.project.rows.values()) >= total
            ),
        )
        await until(watching, a, lambda seen: sum(seen.project.rows.values()) >= total)
        assert same(a, b)
    finally:
        await a.stop()
        await b.stop()


async def test_a_server_that_dies_under_up_is_started_again(tmp_path: Path) -> None:
    home = tmp_path / "alone"
    machine = Machine("alone", home, "nats://127.0.0.1:0", PROJECT, extra={"MEMBRIDGE_NATS_URL": _free_url()})
    machine.database.parent.mkdir(parents=True)
    await asyncio.to_thread(shutil.copyfile, SAMPLE, machine.database)
    await machine.start("up")
    try:
        await _answers(machine, lambda seen: int(seen["project"]["mirror_seq"]) >= 1)
        old = _server_pid(home)
        os.kill(old, signal.SIGKILL)
        await machine.write(2, "while the server was down")
        after = await _answers(machine, lambda seen: int(seen["project"]["mirror_seq"]) >= 2)
        assert after["project"]["role"] == "primary"
        new = _server_pid(home)
        assert new != old
        pushed = await command(machine, "push")
        assert pushed["outcome"] in {"unchanged", "committed"}
    finally:
        process = machine.process
        assert process is not None
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(20.0):
            code = await process.wait()
    assert code == 0
    with pytest.raises(ProcessLookupError):
        os.kill(new, 0)


async def test_the_old_tools_commands_keep_their_exit_codes_with_a_daemon(tmp_path: Path, forgetful: Forgetful) -> None:
    a = Machine("a", tmp_path / "a", forgetful.url, PROJECT)
    b = Machine("b", tmp_path / "b", forgetful.url, PROJECT)
    a.database.parent.mkdir(parents=True)
    await asyncio.to_thread(shutil.copyfile, SAMPLE, a.database)
    try:
        await a.start()
        await _answers(a, lambda seen: int(seen["project"]["mirror_seq"]) >= 1)
        await b.start()
        await _answers(b, lambda seen: int(seen["project"]["mirror_seq"]) >= 1)
        assert (await a.command("push_sqlite"))[0] == 0
        code, output = await b.command("push_sqlite")
        assert (code, "not primary" in output) == (3, True), output
        assert (await b.command("pull_sqlite"))[0] == 0
        await a.write(1, "not pushed yet")
        code, output = await a.command("pull_sqlite")
        assert code in {0, 2}, output
        if code == 2:
            assert "ALLOW_PRIMARY_PULL_OVERRIDE" in output
        assert count(a) >= 495
    finally:
        await a.stop()
        await b.stop()


async def _answers(machine: Machine, wanted: Callable[[Status], bool]) -> Status:
    """Ask by command until the status is as wanted."""
    seen: Status = {}
    try:
        async with asyncio.timeout(SOON):
            while True:
                code, output = await machine.command("status", "--json")
                if code == 0:
                    seen = json.loads(output)
                    if wanted(seen):
                        return seen
    except TimeoutError:
        pytest.fail(f"{seen}\n{machine.log.read_text()[-3000:]}")


def _server_pid(home: Path) -> int:
    (ports,) = (home / ".local" / "state" / "membridge" / "nats").glob("nats-server_*.ports")
    return int(ports.stem.rpartition("_")[2])


def _free_url() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"nats://127.0.0.1:{listener.getsockname()[1]}"
