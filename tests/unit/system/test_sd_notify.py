"""What systemd hears."""

import asyncio
import socket
from pathlib import Path

import pytest

from membridge.system.sd_notify import Notifier


@pytest.fixture
def channel(tmp_path: Path) -> socket.socket:
    heard = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    heard.bind(str(tmp_path / "notify"))
    heard.settimeout(5.0)
    return heard


def test_a_state_reaches_the_socket(tmp_path: Path, channel: socket.socket) -> None:
    with channel:
        Notifier.of({"NOTIFY_SOCKET": str(tmp_path / "notify")}).send("READY=1")
        assert channel.recv(100) == b"READY=1"


def test_an_abstract_socket_is_reached_too() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind("\0membridge-test-notify")
        heard.settimeout(5.0)
        Notifier("@membridge-test-notify", None).send("STOPPING=1")
        assert heard.recv(100) == b"STOPPING=1"


def test_without_systemd_nothing_is_sent_and_nothing_fails(tmp_path: Path) -> None:
    assert Notifier.of({}) == Notifier(None, None)
    Notifier(None, None).send("READY=1")
    Notifier(str(tmp_path / "nobody"), None).send("READY=1")


async def test_the_watchdog_hears_a_sign_of_life(tmp_path: Path, channel: socket.socket) -> None:
    notifier = Notifier.of({"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "20000"})
    assert notifier.watchdog == 0.02
    ready = asyncio.Event()
    with channel:
        async with asyncio.TaskGroup() as group:
            alive = group.create_task(notifier.alive(ready.set))
            signs = [await asyncio.to_thread(channel.recv, 100) for _ in range(3)]
            alive.cancel()
    assert ready.is_set()
    assert signs == [b"WATCHDOG=1"] * 3
