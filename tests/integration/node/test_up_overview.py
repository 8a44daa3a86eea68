"""`membridge up` prints every part that it runs, is up when its store answers too, and runs without a coordinator."""

import asyncio
import sys
from pathlib import Path

from membridge.objectstore.s3.client import S3Options
from tests.fixtures.heard import PATIENCE, Heard
from tests.fixtures.machines import MakeMachine, command
from tests.fixtures.pace import pause
from tests.fixtures.ports import free_port
from tests.fixtures.relay import HttpFaults, relayed


async def test_up_is_not_up_while_its_store_does_not_answer(
    make_machine: MakeMachine, s3_options: S3Options, tmp_path: Path
) -> None:
    claude = tmp_path / "claude"
    claude.write_text(f"#!{sys.executable}\nprint('2.0')\n", encoding="utf-8")
    claude.chmod(0o700)
    faults = HttpFaults(busy=1_000_000)
    async with relayed(s3_options.endpoint, faults) as endpoint:
        up = make_machine(
            "a",
            memory=True,
            MEMBRIDGE_NATS_URL=(url := f"nats://127.0.0.1:{free_port()}"),
            MEMBRIDGE_STORE="s3",
            MINIO_ENDPOINT=endpoint,
            MINIO_ACCESS_KEY=s3_options.access_key,
            MINIO_SECRET_KEY=s3_options.secret_key,
            MINIO_BUCKET=s3_options.bucket,
            MEMBRIDGE_COORDINATOR="1",
            MEMBRIDGE_WORKER="1",
            MEMBRIDGE_CLAUDE=str(claude),
        )
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "membridge.cli.main", "up", stderr=asyncio.subprocess.PIPE, env=up.environment()
        )
        up.process = process
        assert process.stderr is not None
        first = await read_until(process.stderr, "Not up yet, nothing is synchronised: ")
        assert not [line for line in first if "is up" in line]
        assert endpoint in first[-1]
        told = {line.split()[0]: line.split(maxsplit=1)[1] for line in first if line.startswith("  ")}
        assert told == {
            "nats-server": url,
            "coordinator": "LLM tasks, kept in the state folder",
            "node": "a",
            "project": f"shared  {up.database}",
            "worker": f"1 tasks at once, with {claude}",
            "snapshots": f"{endpoint} {s3_options.bucket}",
            "state": str(up.home / ".local" / "state" / "membridge"),
        }
        faults.busy = 0
        await read_until(process.stderr, "Membridge is up.")
        await up.stop()
        await process.stderr.read()


async def test_a_coordinator_whose_database_cannot_be_opened_is_tried_again_and_the_memory_synchronised_meanwhile(
    make_machine: MakeMachine, heard: Heard, tmp_path: Path
) -> None:
    database = tmp_path / "tasks.db"
    database.mkdir()
    up = make_machine(
        "a",
        memory=True,
        MEMBRIDGE_NATS_URL=f"nats://127.0.0.1:{free_port()}",
        MEMBRIDGE_COORDINATOR="1",
        DATABASE_URL=f"sqlite:///{database}",
        NOTIFY_SOCKET=heard.address,
    )
    await heard.start(up)
    assert "coordinator not running" in up.log.read_text(encoding="utf-8")
    await up.write(2, "meanwhile")
    assert (await command(up, "push", "--snapshot"))["outcome"] in {"committed", "unchanged"}
    assert (await command(up, "status"))["project"]["unsynced"] == 0
    database.rmdir()
    async with asyncio.timeout(PATIENCE):
        while (await up.command("task", "list"))[0]:
            assert up.process is not None
            assert up.process.returncode is None
            await pause()
    await up.stop()


async def read_until(stream: asyncio.StreamReader, wanted: str) -> list[str]:
    """Return the lines up to the one that begins so."""
    lines: list[str] = []
    async with asyncio.timeout(PATIENCE):
        while not lines or not lines[-1].startswith(wanted):
            line = await stream.readline()
            assert line, lines
            lines.append(line.decode().rstrip("\n"))
    return lines
