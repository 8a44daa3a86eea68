"""The runbooks of docs/recovery.md, with daemons and a server whose folder is really wiped."""

import shutil
from contextlib import AsyncExitStack
from pathlib import Path

from membridge.aio.deadline import Deadline
from membridge.bus.connection import connect
from membridge.bus.options import BusOptions
from membridge.claudemem.memory import memory_rows
from membridge.embedded.nats_server import start_nats
from membridge.objectstore.s3.client import S3Options
from schemas.leadership import Role
from tests.fixtures.machines import MakeMachine, command, until
from tests.fixtures.ports import free_port


def on(options: S3Options) -> dict[str, str]:
    return {
        "MINIO_ENDPOINT": options.endpoint, "MINIO_ACCESS_KEY": options.access_key,
        "MINIO_SECRET_KEY": options.secret_key, "MINIO_BUCKET": options.bucket,
    }  # fmt: skip


async def run_and_lose_nats(make_machine: MakeMachine, folder: Path, source: str, **extra: str) -> None:
    """Let two nodes share a memory, wipe the server's folder, recover from `source`, and count every row."""
    port = free_port()
    extra = {"MEMBRIDGE_NATS_URL": f"nats://127.0.0.1:{port}", "PRIMARY_NODE_ID": "a", **extra}
    a, b = make_machine("a", memory=True, **extra), make_machine("b", **extra)
    options = BusOptions(urls=(f"nats://127.0.0.1:{port}",), name="test")
    with start_nats(folder, port=port):
        async with AsyncExitStack() as stack:
            bus = await stack.enter_async_context(connect(options, deadline=Deadline.after(5.0)))
            await a.start()
            await until(bus, a, lambda seen: seen.project.mirror_seq >= 1)
            await b.start()
            await until(bus, b, lambda seen: seen.project.mirror_seq >= 1 and seen.project.lag == 0)
            seq = (await command(a, "status"))["project"]["head_seq"]
            await a.stop()
            await b.stop()
    await a.write(2, "only-a")
    await b.write(2, "only-b")
    shutil.rmtree(folder)
    with start_nats(folder, port=port):
        async with AsyncExitStack() as stack:
            bus = await stack.enter_async_context(connect(options, deadline=Deadline.after(5.0)))
            # The runbook's command, before any daemon syncs by itself.
            if source != "store":
                code, output = await a.command("recover", "--from", source)
                assert (code, "lost: neither NATS nor the object store has a snapshot" in output) == (1, True), output
                assert "run it again with --yes" in output
            reply = await command(a, "recover", "--from", source, "--yes")
            assert reply["seq"] >= seq
            assert (await command(a, "verify"))["findings"] == []
            await a.start()
            await b.start()
            await until(bus, a, lambda seen: seen.project.role is Role.PRIMARY)
            await until(bus, b, lambda seen: seen.project.head_seq > seq and seen.project.lag == 0)
            for machine in (a, b):
                await until(bus, machine, lambda seen: _settled(a.database, b.database) and not seen.project.unsynced)
            assert {row for row in memory_rows(a.database)["observations"] if b"only-b" in row}


def _settled(one: Path, other: Path) -> bool:
    return memory_rows(one) == memory_rows(other)


async def test_nats_was_lost(make_machine: MakeMachine, tmp_path: Path, s3_options: S3Options) -> None:
    await run_and_lose_nats(make_machine, tmp_path / "own", "store", **on(s3_options))


async def test_both_were_lost(make_machine: MakeMachine, tmp_path: Path) -> None:
    await run_and_lose_nats(make_machine, tmp_path / "own", "database")
