"""Transfers that break at the worst place: what is left in the store, in the process table and in memory."""

import asyncio
import os
import random
import subprocess
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from membridge.aio import threads
from membridge.aio.deadline import Deadline
from membridge.errors import DeadlineExceededError, MembridgeError, ObjectExistsError, StoreUnavailableError
from membridge.objectstore.s3.client import S3Options, S3Store, open_s3
from tests.bench.s3 import S3
from tests.fixtures.relay import HttpFaults, relayed

ROOT = Path(__file__).parents[2]


def soon() -> Deadline:
    return Deadline.after(30.0)


@asynccontextmanager
async def behind(options: S3Options, faults: HttpFaults) -> AsyncGenerator[S3Store]:
    async with relayed(options.endpoint, faults) as address, open_s3(replace(options, endpoint=address)) as store:
        assert isinstance(store, S3Store)
        yield store


def a_file(folder: Path, megabytes: int = 12) -> Path:
    source = folder / "source"
    source.write_bytes(random.Random(megabytes).randbytes(megabytes << 20))
    return source


async def unfinished(server: S3, bucket: str) -> list[str]:
    """Return the keys of uploads that the store still keeps parts of."""
    reply = await threads.run(lambda: server.client().list_multipart_uploads(Bucket=bucket))
    return [one["Key"] for one in reply.get("Uploads", [])]


async def ended(pid: int) -> None:
    """Wait until a process is gone."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    loop, gone = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(handle, gone.set)
    try:
        async with asyncio.timeout(10.0):
            await gone.wait()
    finally:
        loop.remove_reader(handle)
        os.close(handle)


async def test_a_completion_whose_answer_was_lost_is_known_as_ours(
    seaweed: S3, s3_options: S3Options, tmp_path: Path
) -> None:
    faults = HttpFaults(lose=r"^POST .*uploadId=", losses=1)
    source, target = a_file(tmp_path), tmp_path / "target"
    async with behind(s3_options, faults) as store:
        await store.upload("k", source, deadline=soon())
        assert faults.losses == 0
        await store.download("k", target, deadline=soon())
        with pytest.raises(ObjectExistsError):
            await store.upload("k", source, deadline=soon())
    assert target.read_bytes() == source.read_bytes()
    assert await unfinished(seaweed, s3_options.bucket) == []


async def test_a_lost_answer_does_not_make_anothers_object_ours(s3_options: S3Options) -> None:
    faults = HttpFaults(lose=r"^PUT .*/k", losses=1)
    async with behind(s3_options, faults) as store:
        async with open_s3(s3_options) as other:
            await other.put("k", b"theirs", deadline=soon())
        with pytest.raises(ObjectExistsError):
            await store.put("k", b"theirs", deadline=soon())
    assert faults.losses == 0


async def test_a_byte_that_flips_on_the_way_up_is_never_stored(s3_options: S3Options) -> None:
    faults = HttpFaults(flip=r"^PUT .*/k", flips=1)
    body = random.Random(3).randbytes(200_000)
    async with behind(s3_options, faults) as store:
        try:
            await store.put("k", body, deadline=soon())
        except MembridgeError:
            assert await store.head("k", deadline=soon()) is None
        else:
            assert await store.get("k", deadline=soon()) == body
    assert faults.flips == 0


async def test_a_cancelled_upload_leaves_no_parts_behind(seaweed: S3, s3_options: S3Options, tmp_path: Path) -> None:
    source = a_file(tmp_path, 24)
    faults = HttpFaults(hold=r"^PUT .*partNumber=3")
    async with behind(s3_options, faults) as store:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(store.upload("k", source, deadline=soon()))
            await faults.held.wait()
            assert await unfinished(seaweed, s3_options.bucket) == ["k"]
            task.cancel()
        faults.open.set()
        pid = store.child_pid
        assert pid is not None
        assert await store.head("k", deadline=soon()) is None
    await ended(pid)
    assert await unfinished(seaweed, s3_options.bucket) == []


async def test_a_refused_upload_leaves_no_parts_behind(seaweed: S3, s3_options: S3Options, tmp_path: Path) -> None:
    source = a_file(tmp_path)
    async with open_s3(s3_options) as store:
        await store.put("k", b"first", deadline=soon())
        with pytest.raises(ObjectExistsError):
            await store.upload("k", source, deadline=soon())
        assert await store.get("k", deadline=soon()) == b"first"
    assert await unfinished(seaweed, s3_options.bucket) == []


async def test_an_answer_that_is_held_back_ends_by_the_deadline_and_harms_no_other_request(
    s3_options: S3Options,
) -> None:
    faults = HttpFaults(hold=r"^GET .*/slow")
    async with behind(s3_options, faults) as store:
        await store.put("slow", b"x", deadline=soon())
        await store.put("quick", b"y", deadline=soon())

        async def slow() -> None:
            with pytest.raises(DeadlineExceededError):
                await store.get("slow", deadline=Deadline.after(1.5))

        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(slow())
            await faults.held.wait()
            assert await store.get("quick", deadline=soon()) == b"y"
            assert not waiting.done()
        faults.open.set()
        assert await store.get("slow", deadline=soon()) == b"x"


async def test_an_endpoint_that_hangs_up_is_said_in_seconds_and_used_again_when_it_is_back(
    s3_options: S3Options,
) -> None:
    faults = HttpFaults(refuse=True)
    async with behind(s3_options, faults) as store:
        began = time.monotonic()
        with pytest.raises(StoreUnavailableError):
            await store.put("k", b"x", deadline=soon())
        assert time.monotonic() - began < 15.0
        faults.refuse = False
        await store.put("k", b"y", deadline=soon())
        assert await store.get("k", deadline=soon()) == b"y"


async def test_a_child_that_was_warmed_and_never_asked_ends_too(s3_options: S3Options) -> None:
    async with open_s3(replace(s3_options, linger_seconds=0.1)) as store:
        assert isinstance(store, S3Store)
        await store.warm()
        pid = store.child_pid
        assert pid is not None
        await ended(pid)
        assert store.child_pid is None
        await store.put("k", b"x", deadline=soon())
        assert store.child_pid not in {None, pid}


async def test_a_child_lives_while_a_request_is_longer_than_it_lingers(s3_options: S3Options) -> None:
    faults = HttpFaults(hold=r"^GET .*/slow")
    async with behind(replace(s3_options, linger_seconds=0.1), faults) as store:
        await store.put("slow", b"x", deadline=soon())
        async with asyncio.TaskGroup() as group:
            slow = group.create_task(store.get("slow", deadline=soon()))
            await faults.held.wait()
            pid = store.child_pid
            # Another that ends, and time enough for a child that only counts from there.
            await store.head("slow", deadline=soon())
            lingered = asyncio.Event()
            asyncio.get_running_loop().call_later(0.3, lingered.set)
            await lingered.wait()
            assert store.child_pid == pid
            faults.open.set()
        assert slow.result() == b"x"


_PARENT = """
import asyncio, sys
from membridge.aio.deadline import Deadline
from membridge.objectstore.s3.client import S3Options, open_s3
async def main():
    endpoint, key, secret, bucket = sys.stdin.read().split()
    async with open_s3(S3Options(endpoint, key, secret, bucket)) as store:
        await store.put("k", b"x", deadline=Deadline.after(20.0))
        assert await store.get("k", deadline=Deadline.after(20.0)) == b"x"
        await store.describe(deadline=Deadline.after(20.0))
asyncio.run(main())
print(sorted({"botocore", "aiobotocore", "aioboto3", "boto3", "aiohttp"} & set(sys.modules)))
"""


async def test_a_process_that_uses_the_store_never_loads_its_library(s3_options: S3Options) -> None:
    given = f"{s3_options.endpoint} {s3_options.access_key} {s3_options.secret_key} {s3_options.bucket}"
    command = [sys.executable, "-c", _PARENT]
    ran = await threads.run(
        lambda: subprocess.run(command, input=given, capture_output=True, text=True, cwd=ROOT, timeout=60, check=False)
    )
    assert (ran.returncode, ran.stdout.strip()) == (0, "[]"), ran.stderr
