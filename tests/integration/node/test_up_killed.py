"""`membridge up` ended without a word: its server goes with it, or is ended by the next `up`, which always starts.

Real processes and a real terminal. A port that a foreign program holds is named with that program, and each remedy that
is printed is followed.
"""

import asyncio
import os
import pty
import re
import signal
import sys
from collections.abc import AsyncGenerator, Generator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path

from membridge.embedded import leftover, nats_server
from membridge.embedded.nats_server import NatsOptions, start_nats
from membridge.testing.node_process import NodeProcess
from tests.fixtures.heard import PATIENCE, Heard
from tests.fixtures.machines import MakeMachine
from tests.fixtures.ports import free_port

#: Opens a terminal as its own, as a shell's child does, and becomes what follows.
IN_TERMINAL = """\
import os, sys
os.setsid()
terminal = os.open(sys.argv[1], os.O_RDWR)
for number in (0, 1, 2):
    os.dup2(terminal, number)
os.execv(sys.argv[2], sys.argv[2:])
"""
FOREIGN = """\
import socket, sys
with socket.create_server(("127.0.0.1", int(sys.argv[1]))):
    print("listening", flush=True)
    sys.stdin.read()
"""


def on_port(make: MakeMachine, heard: Heard, port: int) -> NodeProcess:
    """Return a machine whose `up` has its server at a port."""
    return make("a", memory=True, MEMBRIDGE_NATS_URL=f"nats://127.0.0.1:{port}", NOTIFY_SOCKET=heard.address)


async def test_a_killed_up_takes_its_server_along_and_the_next_one_starts(
    make_machine: MakeMachine, heard: Heard
) -> None:
    up = on_port(make_machine, heard, port := free_port())
    await heard.start(up)
    await killed(up)
    await heard.start(up)
    await killed(up)

    # Where the kernel does not end it, or not yet: one that nothing ties to its parent.
    state = up.home / ".local" / "state" / "membridge" / "nats"
    async with untied(NatsOptions(state, port)) as left:
        leftover.note(state, left.pid)
        await heard.start(up)
        assert left.returncode == 0
    assert f'"pid":{left.pid}' in up.log.read_text(encoding="utf-8")


async def test_a_closed_terminal_stops_up_cleanly(make_machine: MakeMachine, heard: Heard) -> None:
    master, slave = pty.openpty()
    up = on_port(make_machine, heard, free_port())
    up.through = (sys.executable, "-c", IN_TERMINAL, os.ttyname(slave))
    await heard.start(up)
    os.close(slave)
    server, process = server_of(up), up.process
    assert process is not None
    with watched(server) as ended:
        os.close(master)
        # The shell sends it to its children too.
        process.send_signal(signal.SIGHUP)
        async with asyncio.timeout(PATIENCE):
            assert await process.wait() == 0
            await ended.wait()
    assert not list((up.home / ".local" / "state" / "membridge" / "nats").glob(leftover.FILE))


async def test_a_port_of_a_foreign_program_is_named_with_it_and_the_remedies_work(
    make_machine: MakeMachine, heard: Heard, tmp_path: Path
) -> None:
    port = free_port()
    up = on_port(make_machine, heard, port)
    foreign = await asyncio.create_subprocess_exec(
        sys.executable, "-c", FOREIGN, str(port), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert foreign.stdout is not None
    await foreign.stdout.readline()
    code, output = await up.command("up")
    name = name_of(foreign.pid)
    assert code == 1
    assert f"pid {foreign.pid} ({name}) listens at 127.0.0.1:{port}" in output
    (url,) = re.findall(r"MEMBRIDGE_NATS_URL=(\S+)", output)
    elsewhere = make_machine("a", MEMBRIDGE_NATS_URL=url, NOTIFY_SOCKET=heard.address)
    await heard.start(elsewhere)
    await elsewhere.stop()

    # The same for a server that others may join.
    others = make_machine("b", MEMBRIDGE_NATS_URL="", NOTIFY_SOCKET=heard.address)
    code, told = await others.command("up", "--listen", f"127.0.0.1:{port}")
    (listen,) = re.findall(r"`membridge up --listen (\S+)`", told)
    assert (code, f"pid {foreign.pid} ({name}) listens" in told) == (1, True)
    others.extra = {**others.extra, "MEMBRIDGE_NATS_LISTEN": listen}
    await heard.start(others)
    await others.stop()

    (kill,) = re.findall(r"`(kill \d+)`", output)
    shell = await asyncio.create_subprocess_shell(kill)
    assert await shell.wait() == 0
    assert await foreign.wait() == -signal.SIGTERM
    with start_nats(tmp_path / "theirs", port=port):
        code, output = await up.command("up")
        assert (code, "(nats-server) listens" in output, "`membridge node`" in output) == (1, True, True)
        await heard.start(up, "node")
        await up.stop()
    await heard.start(up)


async def test_a_killed_demo_takes_its_server_and_its_nodes_along(tmp_path: Path) -> None:
    demo = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "membridge.cli.main", "demo", stdout=asyncio.subprocess.PIPE,
        env={"HOME": str(tmp_path), "PATH": os.environ["PATH"], "TMPDIR": str(tmp_path)},
    )  # fmt: skip
    try:
        assert demo.stdout is not None
        async with asyncio.timeout(PATIENCE):
            while b"a new machine gets the whole memory" not in (line := await demo.stdout.readline()):
                assert line, "it ended"
        with ExitStack() as stack:
            ends: list[asyncio.Event] = []
            for pid in children_of(demo.pid):
                # A program that writes into a memory comes and goes meanwhile.
                with suppress(ProcessLookupError):
                    ends.append(stack.enter_context(watched(pid)))
            assert len(ends) >= 3, "a server and two nodes"
            demo.kill()
            async with asyncio.timeout(PATIENCE):
                for ended in ends:
                    await ended.wait()
    finally:
        if demo.returncode is None:
            demo.kill()
        await demo.communicate()


@contextmanager
def watched(pid: int) -> Generator[asyncio.Event]:
    """Yield the event of a process' end."""
    descriptor, ended, loop = os.pidfd_open(pid), asyncio.Event(), asyncio.get_running_loop()
    loop.add_reader(descriptor, ended.set)
    try:
        yield ended
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


async def killed(up: NodeProcess) -> None:
    """Kill `up` and wait for the end of its server, which nothing else ends."""
    with watched(server_of(up)) as ended:
        await up.kill()
        async with asyncio.timeout(PATIENCE):
            await ended.wait()


@asynccontextmanager
async def untied(options: NatsOptions) -> AsyncGenerator[asyncio.subprocess.Process]:
    """Run a server that nothing ties to its parent."""
    process = await asyncio.create_subprocess_exec(*nats_server._command(options), stderr=asyncio.subprocess.PIPE)
    assert process.stderr is not None
    try:
        async with asyncio.timeout(PATIENCE):
            while b"Server is ready" not in (line := await process.stderr.readline()):
                assert line, "it ended"
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def name_of(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text("ascii").strip()


def server_of(up: NodeProcess) -> int:
    """Return the process of its server."""
    assert up.process is not None
    (found,) = (child for child in children_of(up.process.pid) if name_of(child) == "nats-server")
    return found


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split()]
