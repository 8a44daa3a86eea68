"""Operations as people and programs meet them: their output, their records, and what stops one half way."""

import asyncio
import fcntl
import json
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from rich.cells import cell_len

from membridge.aio.deadline import Deadline
from membridge.bus.connection import Bus, connect
from membridge.bus.options import BusOptions
from membridge.claudemem.memory import memory_rows
from membridge.embedded.nats_server import bundled_config, start_nats
from membridge.objectstore.s3.client import S3Options
from membridge.testing.node_process import NodeProcess
from membridge.testing.writer import write
from schemas import subjects
from schemas.identity import canonical_id
from schemas.leadership import Role
from tests.fixtures.machines import PROJECT, SAMPLE, MakeMachine, command, until
from tests.fixtures.ports import free_port

ID = canonical_id(PROJECT)
#: What runs a command on a terminal: what is piped is as wide as it is.
ON_A_TERMINAL = (
    sys.executable,
    "-c",
    "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))",
)
LISTS = ("status", "nodes", "jobs", "history", "backups", "conflicts", "quarantine", "doctor")


async def test_every_list_fits_a_terminal_of_80_columns_and_is_one_json_document(
    make_machine: MakeMachine, bus: Bus
) -> None:
    a = make_machine("a", memory=True)
    b = make_machine("b", COLUMNS="80", NO_COLOR="1", TERM="dumb")
    await a.start()
    await until(bus, a, lambda seen: seen.project.mirror_seq >= 1)
    await b.start()
    await until(bus, b, lambda seen: seen.project.mirror_seq >= 1)
    for database, subtitle in ((a.database, "记忆 of the primary"), (b.database, "the secondary's")):
        with closing(sqlite3.connect(database, timeout=10)) as connection, connection:
            connection.execute("UPDATE observations SET subtitle = ? WHERE id = 7", (subtitle,))
    await until(bus, b, lambda seen: seen.project.unsynced == 0 and seen.project.lag == 0)
    for name in LISTS:
        b.through = ON_A_TERMINAL
        code, output = await b.command(name)
        b.through = ()
        assert code == 0 or name == "doctor", output
        assert output.strip()
        assert "Traceback" not in output
        assert [line for line in output.splitlines() if cell_len(line) > 80] == []
        code, output = await b.command(name, "--json")
        assert isinstance(json.loads(output), dict), output


async def test_an_error_is_on_standard_error_and_with_json_a_document(make_machine: MakeMachine) -> None:
    machine = make_machine("a")
    words = ("-m", "membridge.cli.main", "push")
    said = await plain(machine, *words)
    assert (said.returncode, said.stdout) == (1, b"")
    first, *rest = said.stderr.decode().splitlines()
    assert first.startswith("error: ")
    assert all(line.startswith("  remedy: ") for line in rest)
    told = await plain(machine, *words, "--json")
    assert (told.returncode, told.stderr) == (1, b"")
    assert json.loads(told.stdout)["message"] == first.removeprefix("error: ")


async def test_a_daemon_logs_one_json_object_a_line_with_the_request_that_caused_it(
    make_machine: MakeMachine, bus: Bus
) -> None:
    a = make_machine("a", memory=True, MEMBRIDGE_LOG_LEVEL="debug")
    await a.start()
    await until(bus, a, lambda seen: seen.project.mirror_seq >= 1)
    a.database.write_text("these are notes\n" * 100, encoding="utf-8")
    headers = {"Membridge-Request-Id": "asked-by-a-test"}
    subject = subjects.PUSH.at(project=ID, node="a")
    refused = await bus.request(subject, b"{}", headers=headers, deadline=Deadline.after(20.0))
    assert json.loads(refused.body)["request_id"] == "asked-by-a-test"
    await a.stop()
    lines = [json.loads(line) for line in a.log.read_text(encoding="utf-8").splitlines()]
    assert all({"ts", "level", "event", "module"} <= line.keys() for line in lines)
    assert {"node ready", "pushed"} <= {line["event"] for line in lines}


async def test_jobs_outlive_the_daemon_and_the_server(make_machine: MakeMachine, tmp_path: Path) -> None:
    port = free_port()
    a = make_machine("a", memory=True, MEMBRIDGE_NATS_URL=f"nats://127.0.0.1:{port}")
    with start_nats(tmp_path / "own", port=port) as server:
        async with connected(server.url) as bus:
            await a.start()
            await until(bus, a, lambda seen: seen.project.mirror_seq >= 1)
            before = (await command(a, "jobs"))["jobs"]
            await a.kill()
    assert {job["kind"] for job in before} >= {"push"}
    with start_nats(tmp_path / "own", port=port) as server:
        async with connected(server.url) as bus:
            await a.start()
            await until(bus, a, lambda seen: seen.project.role is Role.PRIMARY)
            after = {job["id"]: job for job in (await command(a, "jobs"))["jobs"]}
            await a.stop()
    assert [after[job["id"]]["state"] for job in before] == [job["state"] for job in before]


async def test_no_secret_is_in_any_output_log_or_process_list(
    make_machine: MakeMachine, tmp_path: Path, s3_options: S3Options
) -> None:
    password = "correct-horse-battery"
    config = tmp_path / "nats.conf"
    users = f'authorization {{ users = [ {{ user: "node", password: "{password}" }} ] }}\n'
    config.write_text(bundled_config().read_text(encoding="utf-8") + users, encoding="utf-8")
    with start_nats(tmp_path / "own", config=config) as server:
        url = server.url.replace("nats://", f"nats://node:{password}@")
        a = make_machine("a", memory=True, **on(s3_options), MEMBRIDGE_NATS_URL=url, MEMBRIDGE_LOG_LEVEL="debug")
        async with connected(url) as bus:
            await a.start()
            await until(bus, a, lambda seen: seen.project.mirror_seq >= 1)
            assert a.process is not None
            seen = [process_list(a.process.pid)]
            assert "membridge.node.main" in seen[0]
            assert "membridge.objectstore.s3.child" in seen[0]
            for words in (("config", "show"), ("status",), ("doctor",), ("jobs",), ("push",), ("project", "list")):
                for form in ((), ("--json",)):
                    _, output = await a.command(*words, *form)
                    seen.append(output)
            await a.stop()
    wrong = make_machine("a", **on(s3_options), MEMBRIDGE_NATS_URL=f"nats://node:{password}@127.0.0.1:9")
    seen += [(await wrong.command("push"))[1], a.log.read_text(encoding="utf-8")]
    for text in seen:
        assert s3_options.secret_key not in text
        assert password not in text


async def test_a_push_that_hangs_is_left_within_ten_seconds_of_sigterm_and_nothing_is_lost(
    make_machine: MakeMachine, bus: Bus, s3_options: S3Options
) -> None:
    gate = Gate()
    async with gated(s3_options.endpoint, gate) as endpoint:
        a = make_machine("a", memory=True, **(on(s3_options) | {"MINIO_ENDPOINT": endpoint}))
        await a.start()
        async with asyncio.timeout(30.0):
            await gate.reached.wait()
        assert a.process is not None
        a.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(10.0):
            assert await a.process.wait() == 0
    again = make_machine("a", **on(s3_options))
    assert (await command(again, "push"))["outcome"] == "committed"
    b = make_machine("b", **on(s3_options))
    await command(b, "pull")
    assert memory_rows(b.database) == memory_rows(a.database)


async def test_a_push_waits_for_another_process_of_this_folder_and_says_so_at_its_deadline(
    make_machine: MakeMachine,
) -> None:
    a = make_machine("a", memory=True)
    await command(a, "push")
    hurried = make_machine("a", MEMBRIDGE_OPERATION_TIMEOUT_SECONDS="2")
    (lock,) = a.home.rglob("lane.lock")
    write(str(a.database), 1, "a")
    with lock.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        code, output = await hurried.command("push")
    assert code == 1
    assert output.count("error:") == 1
    assert (await command(a, "push"))["outcome"] == "committed"


async def test_a_push_of_a_database_that_stays_locked_is_given_up_at_the_deadline(make_machine: MakeMachine) -> None:
    a = make_machine("a", MEMBRIDGE_OPERATION_TIMEOUT_SECONDS="2")
    shutil.copyfile(SAMPLE, a.database)
    with closing(sqlite3.connect(a.database, isolation_level=None)) as holder:
        holder.execute("PRAGMA journal_mode = DELETE")
        holder.execute("BEGIN EXCLUSIVE")
        code, output = await a.command("push")
        holder.execute("ROLLBACK")
    assert code == 1
    assert output.count("error:") == 1
    assert (await command(make_machine("a"), "push"))["outcome"] == "committed"


@pytest.mark.parametrize("room", ["64k", "400k", "900k"])
async def test_a_disk_that_is_or_gets_full_stops_a_push_and_changes_nothing(
    make_machine: MakeMachine, tmp_path: Path, room: str
) -> None:
    a = make_machine("a", memory=True)
    kept = memory_rows(a.database)
    with small_disk(tmp_path / "small", room) as disk:
        cramped = make_machine("a", MEMBRIDGE_STATE_DIR=str(disk / "state"))
        code, output = await cramped.command("push")
        assert (code, output.count("error:")) == (1, 1), output
        assert "space" in output or "full" in output
        # What did not fit does not keep the disk full.
        kept_files = {path.name for path in (disk / "state").rglob("*") if path.suffix in {".db", ".part", ".memory"}}
        assert kept_files == {"journal.db", "rows.db"}
    assert memory_rows(a.database) == kept
    code, output = await make_machine("b").command("pull")
    assert "no snapshot yet" in output
    assert (await command(a, "push"))["outcome"] == "committed"


async def test_without_roles_two_daemons_commit_and_converge(make_machine: MakeMachine, bus: Bus) -> None:
    a, b = (make_machine(name, memory=True, LEADERSHIP_ENABLED="0") for name in ("a", "b"))
    await a.start()
    await b.start()
    for machine in (a, b):
        await until(bus, machine, lambda seen: seen.project.mirror_seq >= 1)
        write(str(machine.database), 3, machine.name)
    for machine in (a, b):
        await until(bus, machine, lambda seen: seen.project.rows.get("observations") == 326)
    head = (await until(bus, a, lambda seen: seen.project.unsynced == 0)).project.head_seq
    await until(bus, b, lambda seen: seen.project.mirror_seq >= head)
    assert memory_rows(a.database) == memory_rows(b.database)
    nodes = {record["node"] for record in (await command(a, "history"))["records"]}
    assert nodes == {"a", "b"}


@dataclass(slots=True)
class Gate:
    """Where uploads wait for ever; `reached` is set by the first."""

    reached: asyncio.Event = field(default_factory=asyncio.Event)


@asynccontextmanager
async def gated(endpoint: str, gate: Gate) -> AsyncGenerator[str]:
    """Run a proxy in front of an S3 server through which nothing is uploaded; yield its address."""
    upstream = urlsplit(endpoint)

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, watched: bool) -> None:
        while data := await reader.read(65536):
            if watched and data.startswith((b"PUT ", b"POST ")):
                gate.reached.set()
                await asyncio.Event().wait()
            writer.write(data)
            await writer.drain()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection(upstream.hostname, upstream.port)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(pump(reader, up_writer, watched=True))
                both.create_task(pump(up_reader, writer, watched=False))
        except* OSError:
            pass
        finally:
            writer.close()
            up_writer.close()

    running: list[asyncio.Task[None]] = []
    async with asyncio.TaskGroup() as group:
        server = await asyncio.start_server(
            lambda reader, writer: running.append(group.create_task(serve(reader, writer))), "127.0.0.1", 0
        )
        async with server:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        for task in running:
            task.cancel()


@asynccontextmanager
async def connected(url: str) -> AsyncGenerator[Bus]:
    async with connect(BusOptions(urls=(url,), name="test"), deadline=Deadline.after(5.0)) as bus:
        yield bus


@contextmanager
def small_disk(folder: Path, size: str) -> Generator[Path]:
    """A file system of a few pages; mounting one is what a test as root can do."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


async def plain(machine: NodeProcess, *words: str) -> subprocess.CompletedProcess[bytes]:
    """Run a command with its two outputs apart."""
    return await asyncio.to_thread(
        subprocess.run,
        [sys.executable, *words],
        env=machine.environment(),
        capture_output=True,
        check=False,
        timeout=30,
    )


def on(options: S3Options) -> dict[str, str]:
    """The settings of a machine that keeps its snapshots there."""
    return {
        "MINIO_ENDPOINT": options.endpoint,
        "MINIO_ACCESS_KEY": options.access_key,
        "MINIO_SECRET_KEY": options.secret_key,
        "MINIO_BUCKET": options.bucket,
    }


def process_list(pid: int) -> str:
    """What a process and everything below it show to all users of the machine."""
    shown = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text(encoding="ascii").split():
            shown += "\n" + process_list(int(child))
    return shown
