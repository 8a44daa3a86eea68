"""S3 that answers badly, late or not at all: a clear error or a whole result, never half of one."""

import asyncio
import os
import random
import signal
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from membridge.aio.deadline import Deadline
from membridge.errors import (
    CredentialsError,
    DeadlineExceededError,
    MembridgeError,
    NotFoundError,
    ObjectExistsError,
    StoreUnavailableError,
)
from membridge.objectstore.s3.client import S3Options, S3Store, open_s3
from tests.fixtures.relay import HttpFaults, relayed


def soon() -> Deadline:
    return Deadline.after(30.0)


@asynccontextmanager
async def through(options: S3Options, faults: HttpFaults) -> AsyncGenerator[S3Store]:
    async with relayed(options.endpoint, faults) as address, open_s3(replace(options, endpoint=address)) as store:
        assert isinstance(store, S3Store)
        yield store


async def test_a_busy_store_is_asked_again(s3_options: S3Options) -> None:
    async with through(s3_options, HttpFaults(busy=2)) as store:
        await store.put("k", b"body", deadline=soon())
        assert await store.get("k", deadline=soon()) == b"body"


async def test_a_store_that_stays_busy_is_given_up(s3_options: S3Options) -> None:
    faults = HttpFaults(busy=10_000)
    async with through(s3_options, faults) as store:
        with pytest.raises(StoreUnavailableError):
            await store.put("k", b"body", deadline=soon())
    assert faults.seen < 20


async def test_a_download_that_is_cut_goes_on_and_is_whole(s3_options: S3Options, tmp_path: Path) -> None:
    body = random.Random(1).randbytes(3 << 20)
    faults = HttpFaults()
    async with through(s3_options, faults) as store:
        await store.put("k", body, deadline=soon())
        faults.cut_after, faults.cuts = 1 << 20, 2
        await store.download("k", tmp_path / "target", deadline=soon())
    assert faults.cuts == 0
    assert (tmp_path / "target").read_bytes() == body


async def test_a_write_whose_answer_was_lost_is_known_as_ours(s3_options: S3Options) -> None:
    faults = HttpFaults()
    async with through(s3_options, faults) as store:
        await store.describe(deadline=soon())
        faults.lose, faults.losses = ".", 1
        await store.put("k", b"ours", deadline=soon())
        with pytest.raises(ObjectExistsError):
            await store.put("k", b"another", deadline=soon())
        assert await store.get("k", deadline=soon()) == b"ours"


async def test_an_endpoint_that_is_down_is_said_soon(s3_options: S3Options) -> None:
    began = time.monotonic()
    async with open_s3(replace(s3_options, endpoint="http://127.0.0.1:9")) as store:
        with pytest.raises(StoreUnavailableError, match=r"127\.0\.0\.1:9"):
            await store.put("k", b"x", deadline=soon())
    assert time.monotonic() - began < 20.0


async def test_a_wrong_key_and_a_missing_bucket_are_told_apart(s3_options: S3Options) -> None:
    async with open_s3(replace(s3_options, secret_key="wrong-secret-key")) as store:
        with pytest.raises(CredentialsError) as refused:
            await store.put("k", b"x", deadline=soon())
    assert "wrong-secret-key" not in refused.value.message + refused.value.remedy
    async with open_s3(replace(s3_options, bucket="not-there-at-all")) as store:
        with pytest.raises(NotFoundError, match="not-there-at-all"):
            await store.get("k", deadline=soon())


async def test_a_killed_transfer_fails_its_request_and_not_the_next(s3_options: S3Options, tmp_path: Path) -> None:
    source = tmp_path / "source"
    with source.open("wb") as file:
        file.truncate(64 << 20)
    started = asyncio.Event()
    async with open_s3(s3_options) as store:
        assert isinstance(store, S3Store)
        await store.put("warm", b"x", deadline=soon())
        pid = store.child_pid
        assert pid is not None

        async def upload() -> None:
            with pytest.raises(StoreUnavailableError):
                await store.upload("k", source, deadline=soon(), progress=lambda *_: started.set())

        async with asyncio.TaskGroup() as group:
            group.create_task(upload())
            await started.wait()
            os.kill(pid, signal.SIGKILL)
        assert await store.head("k", deadline=soon()) is None
        await store.put("after", b"y", deadline=soon())
        assert store.child_pid not in {None, pid}


async def test_a_cancelled_caller_leaves_a_store_that_works(s3_options: S3Options, tmp_path: Path) -> None:
    source = tmp_path / "source"
    with source.open("wb") as file:
        file.truncate(32 << 20)
    started = asyncio.Event()
    async with open_s3(s3_options) as store:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(store.upload("k", source, deadline=soon(), progress=lambda *_: started.set()))
            await started.wait()
            task.cancel()
        await store.put("after", b"y", deadline=soon())
        assert await store.get("after", deadline=soon()) == b"y"


async def test_a_deadline_holds_against_a_store_that_says_nothing(s3_options: S3Options) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    async with server:
        endpoint = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with open_s3(replace(s3_options, endpoint=endpoint)) as store:
            began = time.monotonic()
            with pytest.raises((DeadlineExceededError, StoreUnavailableError)):
                await store.put("k", b"x", deadline=Deadline.after(3.0))
            assert time.monotonic() - began < 6.0


async def test_the_child_ends_when_idle_and_shows_no_secret_while_it_lives(s3_options: S3Options) -> None:
    async with open_s3(replace(s3_options, linger_seconds=0.2)) as store:
        assert isinstance(store, S3Store)
        await store.put("k", b"x", deadline=soon())
        pid = store.child_pid
        assert pid is not None
        for name in ("cmdline", "environ"):
            assert s3_options.secret_key.encode() not in shown(pid, name)
        exited = os.pidfd_open(pid)
        loop, gone = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(exited, gone.set)
        async with asyncio.timeout(10.0):
            await gone.wait()
        loop.remove_reader(exited)
        os.close(exited)
        assert await store.get("k", deadline=soon()) == b"x"
    assert "botocore" not in sys.modules or "boto3" in sys.modules
    assert s3_options.secret_key not in repr(s3_options)


async def test_moving_a_large_database_takes_little_memory_and_gives_it_back(
    s3_options: S3Options, tmp_path: Path
) -> None:
    size = 256 << 20
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(random.Random(2).randbytes(1 << 20) * 256)
    async with open_s3(s3_options) as store:
        assert isinstance(store, S3Store)
        await store.put("small", b"x", deadline=soon())
        ours, child = rss("self"), rss(store.child_pid)
        peak = [0, 0]

        def watch(done: int, total: int) -> None:
            del done, total
            peak[0], peak[1] = max(peak[0], rss("self")), max(peak[1], rss(store.child_pid))

        await store.upload("large", source, deadline=Deadline.after(90.0), progress=watch)
        await store.download("large", target, deadline=Deadline.after(90.0), progress=watch)
    assert target.stat().st_size == size
    grown = max(peak[0] - ours, 0) + max(peak[1] - child, 0)
    assert 0 < grown < 64 << 20


def shown(pid: int, name: str) -> bytes:
    return Path(f"/proc/{pid}/{name}").read_bytes()


def rss(pid: object) -> int:
    try:
        return int(Path(f"/proc/{pid}/status").read_text(encoding="ascii").partition("VmRSS:")[2].split()[0]) << 10
    except (OSError, IndexError) as error:
        raise MembridgeError(f"no such process {pid}") from error
