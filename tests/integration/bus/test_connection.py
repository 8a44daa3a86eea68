"""The connection: a first failure says why at once, a later one is waited out, and nothing is sent twice or late."""

import asyncio
import os
import signal
import socket
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from membridge.bus.connection import Bus, connect
from membridge.bus.options import BusOptions
from membridge.deadline import Deadline
from membridge.embedded.nats_server import NatsServer, start_nats
from membridge.errors import BusUnavailableError, CredentialsError, NoResponderError, TooLargeError
from tests.fixtures.nats import QUICK


def options(url: str) -> BusOptions:
    return BusOptions(urls=(url,), name="test", pace=QUICK)


@contextmanager
def server_with(tmp_path: Path, extra: str) -> Generator[NatsServer]:
    config = tmp_path / "special.conf"
    config.write_text(f"listen: 127.0.0.1:-1\nhttp: 127.0.0.1:-1\n{extra}\n", encoding="utf-8")
    with start_nats(tmp_path / "special", config=config) as server:
        yield server


async def test_a_server_that_is_not_there_is_said_within_five_seconds() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    began = time.monotonic()
    with pytest.raises(BusUnavailableError) as failed:
        async with connect(options(f"nats://127.0.0.1:{port}"), deadline=Deadline.after(5.0)):
            pass
    assert time.monotonic() - began < 5.5
    assert "membridge up" in failed.value.remedy


async def test_refused_credentials_are_said(tmp_path: Path) -> None:
    with server_with(tmp_path, "jetstream {}\nauthorization { users = [ { user: a, password: right } ] }") as server:
        with pytest.raises(CredentialsError):
            async with connect(options(server.url.replace("//", "//a:wrong@")), deadline=Deadline.after(5.0)):
                pass
        async with connect(options(server.url.replace("//", "//a:right@")), deadline=Deadline.after(5.0)) as bus:
            assert bus.connected


async def test_a_message_over_the_servers_limit_is_refused_here(bus: Bus) -> None:
    with pytest.raises(TooLargeError):
        await bus.publish("x", b"x" * (2 << 20))
    assert bus.connected


async def test_nobody_there_is_an_answer_at_once(bus: Bus) -> None:
    began = time.monotonic()
    with pytest.raises(NoResponderError):
        await bus.request("nobody.listens", deadline=Deadline.after(10.0))
    assert time.monotonic() - began < 1.0


async def test_a_frozen_server_is_noticed_and_forgotten_when_it_thaws(bus: Bus, nats_server: NatsServer) -> None:
    os.kill(nats_server.pid, signal.SIGSTOP)
    try:
        async with asyncio.timeout(10.0):
            while bus.connected:
                with pytest.raises((BusUnavailableError, Exception)):
                    await bus.request("nobody.listens", deadline=Deadline.after(0.2))
        with pytest.raises(BusUnavailableError):
            await bus.publish("x", b"never delivered later")
    finally:
        os.kill(nats_server.pid, signal.SIGCONT)
    generation = bus.generation
    async with asyncio.timeout(10.0):
        if not bus.connected:
            await bus.wait_generation(generation)
    with pytest.raises(NoResponderError):
        await bus.request("nobody.listens", deadline=Deadline.after(5.0))


async def test_a_subscription_survives_a_broken_connection(bus: Bus) -> None:
    async with bus.subscribe("news") as news:
        generation = bus.generation
        await bus.raw.force_reconnect()
        await bus.wait_generation(generation)
        await bus.settle()
        await bus.publish("news", b"after")
        async with asyncio.timeout(5.0):
            message = await anext(news)
    assert message.body == b"after"


async def test_a_client_that_the_server_closed_for_good_is_replaced(bus: Bus) -> None:
    async with bus.subscribe("news") as news:
        generation = bus.generation
        await bus.raw.close()
        async with asyncio.timeout(10.0):
            await bus.wait_generation(generation)
            await bus.settle()
            await bus.publish("news", b"again")
            assert (await anext(news)).body == b"again"
