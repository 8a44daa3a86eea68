"""Progress of transfers that really take long: on NATS, as a bar on a terminal, as plain lines elsewhere."""

import asyncio
import os
import pty
import shutil
import sys
from contextlib import suppress
from pathlib import Path

from membridge.bus.connection import Bus
from membridge.bus.subscription import Subscription
from membridge.objectstore.s3.client import S3Options
from membridge.testing.node_process import NodeProcess
from schemas import subjects
from schemas.events import Progress, decode_event
from schemas.identity import canonical_id
from tests.fixtures.machines import PROJECT, SAMPLE, until
from tests.fixtures.relay import HttpFaults, relayed


async def heard(progress: Subscription, kind: str, step: str) -> Progress:
    """Return the first word about a step of a job of `kind`."""
    async with asyncio.timeout(20.0):
        async for message in progress:
            event = decode_event(message.body)
            if isinstance(event, Progress) and (event.kind, event.step) == (kind, step):
                return event
    raise AssertionError("the subscription ended")


def machine(name: str, root: Path, url: str, endpoint: str, s3: S3Options) -> NodeProcess:
    settings = {
        "MINIO_ENDPOINT": endpoint,
        "MINIO_ACCESS_KEY": s3.access_key,
        "MINIO_SECRET_KEY": s3.secret_key,
        "MINIO_BUCKET": s3.bucket,
    }
    made = NodeProcess(name, root / name, url, PROJECT, extra=settings)
    made.database.parent.mkdir(parents=True)
    return made


async def test_a_transfer_that_stands_still_is_shown_where_people_look(
    bus: Bus, nats_url: str, s3_options: S3Options, tmp_path: Path
) -> None:
    subject = subjects.PROGRESS.format(project=canonical_id(PROJECT), node="*")
    faults = HttpFaults(hold=r"PUT \S+/snapshots/")
    async with bus.subscribe(subject) as progress, relayed(s3_options.endpoint, faults) as endpoint:
        a = machine("a", tmp_path, nats_url, endpoint, s3_options)
        await asyncio.to_thread(shutil.copyfile, SAMPLE, a.database)
        try:
            await a.start()
            event = await heard(progress, "push", "upload")
            assert (event.node, event.project) == ("a", canonical_id(PROJECT))
            assert event.total >= event.done >= 0
            # On a terminal a bar, elsewhere a line; both of the push that runs in the daemon.
            primary, secondary = pty.openpty()
            on_terminal = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "membridge.cli.main", "push"),
                env={**a.environment(), "TERM": "xterm", "COLUMNS": "80"},
                stdout=secondary,
                stderr=secondary,
            )
            os.close(secondary)
            plain = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "membridge.cli.main", "push"),
                env=a.environment(),
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
            )
            assert plain.stderr is not None
            async with asyncio.timeout(30.0):
                line = await plain.stderr.readline()
            assert line.decode().startswith("push: ")
            shown = await asyncio.to_thread(_read_until, primary, "push: ")
            assert "push: " in shown
            faults.open.set()
            async with asyncio.timeout(30.0):
                assert await plain.wait() == 0
                assert await on_terminal.wait() == 0
            os.close(primary)
        finally:
            faults.open.set()
            await a.stop()


async def test_a_pull_that_stands_still_is_told_of(
    bus: Bus, nats_url: str, s3_options: S3Options, tmp_path: Path
) -> None:
    subject = subjects.PROGRESS.format(project=canonical_id(PROJECT), node="*")
    a = machine("a", tmp_path, nats_url, s3_options.endpoint, s3_options)
    await asyncio.to_thread(shutil.copyfile, SAMPLE, a.database)
    faults = HttpFaults(hold=r"GET \S+/snapshots/")
    try:
        await a.start()
        await until(bus, a, lambda seen: seen.project.mirror_seq >= 1)
        async with bus.subscribe(subject) as progress, relayed(s3_options.endpoint, faults) as endpoint:
            b = machine("b", tmp_path, nats_url, endpoint, s3_options)
            try:
                await b.start()
                assert (await heard(progress, "pull", "download")).node == "b"
                faults.open.set()
                await until(bus, b, lambda seen: seen.project.mirror_seq >= 1)
            finally:
                faults.open.set()
                await b.stop()
    finally:
        await a.stop()


def _read_until(terminal: int, wanted: str) -> str:
    shown = ""
    with suppress(OSError):
        while wanted not in shown:
            piece = os.read(terminal, 4096)
            if not piece:
                break
            shown += piece.decode(errors="replace")
    return shown
