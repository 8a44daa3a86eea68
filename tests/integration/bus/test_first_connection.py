"""A server that is not one to work with is named at the first connection, before anything is sent to it."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest

from membridge.aio.deadline import Deadline
from membridge.bus.connection import connect
from membridge.bus.options import BusOptions
from membridge.errors import BusUnavailableError
from tests.fixtures.nats import QUICK


@asynccontextmanager
async def greeting(info: dict[str, object]) -> AsyncGenerator[str]:
    """A server that says what it is and answers pings, as NATS does at the start."""
    running: list[asyncio.Task[None]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"INFO " + json.dumps(info).encode() + b"\r\n")
        try:
            while line := await reader.readline():
                if line.startswith(b"PING"):
                    writer.write(b"PONG\r\n")
        finally:
            writer.close()

    async with asyncio.TaskGroup() as group:
        server = await asyncio.start_server(
            lambda reader, writer: running.append(group.create_task(serve(reader, writer))), "127.0.0.1", 0
        )
        async with server:
            yield f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        for task in running:
            task.cancel()


INFO: dict[str, object] = {"server_id": "S", "version": "2.15.1", "max_payload": 1 << 20, "headers": True, "proto": 1}


@pytest.mark.parametrize("version", ["2.9.25", "2.14.5"])
async def test_a_server_that_is_too_old_is_refused_with_the_version_that_is_needed(version: str) -> None:
    async with greeting({**INFO, "version": version, "jetstream": True}) as url:
        with pytest.raises(BusUnavailableError) as refused:
            async with connect(BusOptions(urls=(url,), name="t", pace=QUICK), deadline=Deadline.after(5.0)):
                pass
    assert version in refused.value.message
    assert "2.14.6" in refused.value.message + refused.value.remedy


async def test_a_server_without_jetstream_is_refused() -> None:
    async with greeting({**INFO, "jetstream": False}) as url:
        with pytest.raises(BusUnavailableError, match="JetStream"):
            async with connect(BusOptions(urls=(url,), name="t", pace=QUICK), deadline=Deadline.after(5.0)):
                pass
