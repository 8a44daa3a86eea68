"""The connection: a first failure says why at once, a later one is waited out, and nothing is sent twice or late."""

import asyncio
import os
import signal
import socket
import time
from collections.abc import Generator
from contextlib import AbstractContextManager, AsyncExitStack, contextmanager
from pathlib import Path

import pytest

from membridge.aio.deadline import Deadline
from membridge.aio.tasks import background
from membridge.bus import nats_client
from membridge.bus.connection import Bus, connect
from membridge.bus.options import BusOptions
from membridge.bus.streams import ensure_streams, open_queue
from membridge.embedded.nats_server import NatsServer, start_nats
from membridge.errors import (
    BusUnavailableError,
    CredentialsError,
    DeadlineExceededError,
    NoResponderError,
    TooLargeError,
)
from schemas import streams
from tests.fixtures.nats import QUICK
from tests.fixtures.ports import free_port


def options(url: str) -> BusOptions:
    return BusOptions(urls=(url,), name="test", pace=QUICK)


@contextmanager
def server_with(tmp_path: Path, extra: str) -> Generator[NatsServer]:
    config = tmp_path / "special.conf"
    config.write_text(f"listen: 127.0.0.1:-1\nhttp: 127.0.0.1:-1\n{extra}\n", encoding="utf-8")
    with start_nats(tmp_path / "special", config=config) as server:
        yield server


async def test_a_server_that_is_not_there_is_said_within_five_seconds() -> None:
    port = free_port()
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


async def test_credentials_that_are_taken_away_count_as_refused_and_a_server_that_is_away_refuses_nothing(
    tmp_path: Path,
) -> None:
    config, port = tmp_path / "users.conf", free_port()

    def server_of(password: str) -> AbstractContextManager[NatsServer]:
        config.write_text(f"jetstream {{}}\nauthorization {{ users = [ {{ user: a, password: {password} }} ] }}")
        return start_nats(tmp_path / "special", port=port, config=config)

    async with AsyncExitStack() as stack:
        with server_of("right") as server:
            url = server.url.replace("//", "//a:right@")
            bus = await stack.enter_async_context(connect(options(url), deadline=Deadline.after(5.0)))
            group = await stack.enter_async_context(background())
            waiting = group.create_task(bus.until_refused())
        assert not waiting.done()
        with server_of("other"):
            async with asyncio.timeout(30.0):
                await asyncio.wait({waiting})


async def test_a_server_without_jetstream_is_said(tmp_path: Path) -> None:
    with server_with(tmp_path, "") as server, pytest.raises(BusUnavailableError, match="JetStream is off"):
        async with connect(options(server.url), deadline=Deadline.after(5.0)):
            pass


async def test_an_account_without_jetstream_is_said(tmp_path: Path) -> None:
    accounts = "accounts { A { jetstream: enabled }, B { users = [ { user: b, password: b } ] } }"
    extra = f"jetstream {{}}\n{accounts}"
    with server_with(tmp_path, extra) as server, pytest.raises(BusUnavailableError, match="JetStream is off"):
        async with connect(options(server.url.replace("//", "//b:b@")), deadline=Deadline.after(5.0)):
            pass


async def test_a_server_that_is_too_old_is_said(nats_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nats_client, "OLDEST_SERVER", (99, 0, 0))
    with pytest.raises(BusUnavailableError, match=r"version 2\..*99\.0\.0"):
        async with connect(options(nats_url), deadline=Deadline.after(5.0)):
            pass


async def test_a_server_that_accepts_and_then_says_nothing_is_said_within_five_seconds() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        with pytest.raises(BusUnavailableError, match="does not answer"):
            async with connect(options(f"nats://127.0.0.1:{silent.getsockname()[1]}"), deadline=Deadline.after(10.0)):
                pass
    assert time.monotonic() - began < 5.0


async def test_a_password_in_an_address_is_in_no_message() -> None:
    with pytest.raises(BusUnavailableError) as failed:
        async with connect(options("nats://user:swordfish@127.0.0.1:1"), deadline=Deadline.after(5.0)):
            pass
    assert "swordfish" not in str(failed.value)


async def test_a_client_closed_by_an_error_of_the_server_is_replaced(bus: Bus) -> None:
    # Over the server's own limit: it answers -ERR and closes, which ends a nats-py client for good.
    client, generation = bus._nats.client, bus.generation
    client._max_payload = 8 << 20
    await client.publish("x", b"x" * (4 << 20))
    async with asyncio.timeout(10.0):
        await bus.wait_generation(generation)
    with pytest.raises(NoResponderError):
        await bus.request("nobody.listens", deadline=Deadline.after(5.0))


async def test_requests_leave_nothing_behind_whatever_became_of_them(bus: Bus) -> None:
    with pytest.raises(NoResponderError):
        await bus.request("nobody.listens", deadline=Deadline.after(5.0))
    async with bus.subscribe("silent"):
        with pytest.raises(DeadlineExceededError):
            await bus.request("silent", deadline=Deadline.after(0.05))
    await asyncio.sleep(0)
    assert len(bus._inbox) == 0


async def test_a_connection_closes_at_once_also_with_a_pull_subscription_in_use(nats_url: str) -> None:
    async with connect(options(nats_url), deadline=Deadline.after(5.0)) as bus:
        await ensure_streams(bus, replicas=1, deadline=Deadline.after(5.0))
        queue = await open_queue(
            bus, streams.PROPOSALS, "q", streams.PROPOSALS.subjects[0], deadline=Deadline.after(5.0)
        )
        await queue.fetch(wait=0.01)
        began = time.monotonic()
    assert time.monotonic() - began < 1.0


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
        await bus._nats.client.force_reconnect()
        await bus.wait_generation(generation)
        await bus.settle()
        await bus.publish("news", b"after")
        async with asyncio.timeout(5.0):
            message = await anext(news)
    assert message.body == b"after"


async def test_a_client_that_the_server_closed_for_good_is_replaced(bus: Bus) -> None:
    async with bus.subscribe("news") as news:
        generation = bus.generation
        await bus._nats.client.close()
        async with asyncio.timeout(10.0):
            await bus.wait_generation(generation)
            await bus.settle()
            await bus.publish("news", b"again")
            assert (await anext(news)).body == b"again"
