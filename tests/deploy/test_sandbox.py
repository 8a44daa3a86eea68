"""The programs work under what the system units forbid: their filter of system calls and sockets, in the kernel itself.

systemd is not needed to run them: what its units allow becomes a filter of this test.
"""

import asyncio
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from membridge.embedded.nats_server import NatsServer, find_binary
from tests.deploy.fetch import fetch
from tests.deploy.test_unit_files import options
from tests.fixtures.machines import SAMPLE
from tests.fixtures.pace import pause
from tests.fixtures.ports import free_port

pytestmark = pytest.mark.real

UNITS = Path(__file__).parents[2] / "deploy" / "systemd" / "system"
PROGRAMS = Path(sys.executable).parent
PATIENCE = 60.0


def calls_of(group: str) -> set[str]:
    """Return the system calls of a group, as systemd has it."""
    command = [fetch(), "syscall-filter", "--no-pager", group]
    listed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE)
    names = [line.strip() for line in listed.stdout.splitlines()[1:] if not line.strip().startswith("#")]
    inner = {call for name in names if name.startswith("@") for call in calls_of(name)}
    return {name for name in names if name and not name.startswith("@")} | inner


def allowed_by(unit: dict[str, list[str]]) -> set[str]:
    found = calls_of("@default")
    for line in unit["SystemCallFilter"]:
        calls = {call for group in line.removeprefix("~").split() for call in calls_of(group)}
        found = found - calls if line.startswith("~") else found | calls
    return found


@pytest.fixture
def sandbox(tmp_path: Path) -> Callable[[str], list[str]]:
    """Return what runs a program as the unit of this name does."""

    def build(name: str) -> list[str]:
        unit = options(UNITS / name)
        folder = tmp_path / name
        folder.mkdir()
        table = [f"#ifdef __NR_{call}\n__NR_{call},\n#endif\n" for call in sorted(allowed_by(unit))]
        (folder / "allowed.h").write_text("".join(table))
        shutil.copyfile(Path(__file__).with_name("sandbox.c"), folder / "sandbox.c")
        subprocess.run(["gcc", "-O1", "-o", "sandbox", "sandbox.c"], cwd=folder, check=True, timeout=PATIENCE)
        families = [str(getattr(socket, family).value) for family in unit["RestrictAddressFamilies"][0].split()]
        strict = unit.get("MemoryDenyWriteExecute") == ["yes"]
        return [str(folder / "sandbox"), str(int(strict)), ",".join(families)]

    return build


@asynccontextmanager
async def running(command: list[str], environ: dict[str, str], ready: Callable[[], bool]) -> AsyncGenerator[None]:
    """Run a program during the body, which begins when it is ready; it must end well when it is asked to."""
    process = await asyncio.create_subprocess_exec(*command, env=environ)
    try:
        async with asyncio.timeout(PATIENCE):
            while not ready():
                assert process.returncode is None
                await pause()
        yield
    finally:
        if process.returncode is None:
            process.terminate()
        ended = await process.wait()
    # nats-server ends with 1 when a signal ended it.
    assert ended in {0, 1} if "nats-server" in command[3] else ended == 0


@asynccontextmanager
async def notifying(command: list[str], environ: dict[str, str]) -> AsyncGenerator[None]:
    """Run a program as `Type=notify` and `WatchdogSec=` do: it reports that it is ready, and then that it is alive."""
    address = f"\0membridge-test-{os.getpid()}-{free_port()}"
    said: list[str] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(address)
        heard.settimeout(0.0)

        def has_said(word: str) -> bool:
            with suppress(BlockingIOError):
                said.extend(heard.recv(1 << 12).decode().splitlines())
            return word in said

        watched = {**environ, "NOTIFY_SOCKET": address.replace("\0", "@"), "WATCHDOG_USEC": "1000000"}
        async with running(command, watched, lambda: has_said("READY=1")):
            async with asyncio.timeout(PATIENCE):
                while not has_said("WATCHDOG=1"):
                    await pause()
            yield


def environment(home: Path, url: str, **more: str) -> dict[str, str]:
    return {"HOME": str(home), "PATH": f"{PROGRAMS}:{os.defpath}", "MEMBRIDGE_NATS_URL": url, **more}


def well(environ: dict[str, str], *command: str) -> bool:
    program = [str(PROGRAMS / "membridge"), *command]
    return not subprocess.run(program, env=environ, capture_output=True, check=False, timeout=PATIENCE).returncode


def test_the_filter_forbids_what_it_should(sandbox: Callable[[str], list[str]]) -> None:
    script = (
        "import ctypes, errno, mmap, os, socket\n"
        "try: os.sched_setaffinity(0, {0}); print('affinity')\n"
        "except PermissionError: pass\n"
        "try: socket.socket(socket.AF_PACKET, socket.SOCK_RAW); print('packets')\n"
        "except OSError as error: assert error.errno == errno.EAFNOSUPPORT\n"
        "socket.socket(); print('internet')\n"
    )
    command = [*sandbox("membridge-gateway.service"), sys.executable, "-c", script]

    assert subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE).stdout == "internet\n"


async def test_nats_server_runs(sandbox: Callable[[str], list[str]], tmp_path: Path) -> None:
    port, config = free_port(), tmp_path / "nats.conf"
    config.write_text(f"listen: 127.0.0.1:{port}\njetstream: enabled\n")
    program = [str(find_binary()), "--config", str(config), "--store_dir", str(tmp_path / "data")]

    def streams() -> bool:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=5) as talk:
                return b'"jetstream":true' in talk.recv(1 << 16)
        except ConnectionRefusedError:
            return False

    async with running([*sandbox("membridge-nats.service"), *program], {"PATH": os.defpath}, streams):
        pass


@pytest.mark.parametrize("name", ["coordinator", "gateway"])
async def test_a_service_serves(
    sandbox: Callable[[str], list[str]], nats_server: NatsServer, tmp_path: Path, name: str
) -> None:
    port = free_port()
    environ = environment(tmp_path, nats_server.url, MEMBRIDGE_GATEWAY_LISTEN=f"127.0.0.1:{port}")
    program = [str(PROGRAMS / "membridge"), name]

    async with notifying([*sandbox(f"membridge-{name}.service"), *program], environ):
        if name == "coordinator":
            assert await asyncio.to_thread(well, environ, "task", "submit", "--agent", "one", "hello")
            assert await asyncio.to_thread(well, environ, "task", "list")
        else:
            with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as asked:
                asked.sendall(b"GET /ready HTTP/1.0\r\nHost: localhost\r\n\r\n")
                assert b" 200 " in asked.recv(1 << 16)


async def test_a_node_pushes(sandbox: Callable[[str], list[str]], nats_server: NatsServer, tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / ".claude-mem").mkdir(parents=True)
    shutil.copyfile(SAMPLE, home / ".claude-mem" / "claude-mem.db")
    environ = environment(home, nats_server.url)
    program = [str(PROGRAMS / "membridge"), "node"]

    async with notifying([*sandbox("membridge-node@.service"), *program], environ):
        # With a daemon here these are its own doing.
        assert await asyncio.to_thread(well, environ, "push")
        assert await asyncio.to_thread(well, environ, "verify")


def test_every_filter_names_groups_that_systemd_knows() -> None:
    for file in UNITS.glob("*.service"):
        for line in options(file)["SystemCallFilter"]:
            assert re.fullmatch(r"~?(@[a-z-]+ ?)+", line)
            assert all(calls_of(group) for group in line.removeprefix("~").split())
