"""The configurations of `deploy/nats`: valid, as strict as the bundled one, and they work together."""

import asyncio
import re
import subprocess
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from membridge.access import certificates
from membridge.aio.deadline import Deadline
from membridge.bus.connection import connect
from membridge.bus.options import BusOptions
from membridge.bus.streams import ensure_streams
from membridge.embedded.nats_server import bundled_config, find_binary, start_nats
from membridge.errors import CredentialsError, MembridgeError
from tests.fixtures.nats import QUICK
from tests.fixtures.pace import pause
from tests.fixtures.ports import free_ports

ROOT = Path(__file__).parents[2]
FILES = ("single.conf", "cluster.conf", "hub.conf", "leaf.conf")
PASSWORD = "swordfish"
#: Its bcrypt hash, of few rounds, as `nats server passwd` makes them.
HASH = "$2a$04$abcdefghijklmnopqrstuugIEnm3ZbWF6xb2GcoE3L1CoGJFMKtu."
ENVIRONMENT = {
    "MEMBRIDGE_NATS_PASSWORD_HASH": HASH,
    "MEMBRIDGE_NATS_LEAF_PASSWORD_HASH": HASH,
    "MEMBRIDGE_NATS_NAME": "leaf1",
    "MEMBRIDGE_NATS_HUB": f"tls://leaf:{PASSWORD}@hub.example.org:7422",
}
PATIENCE = 30.0
#: The ports that servers know each other by, and the change of `running` that names a free one.
PORTS = {"6222": "route_port", "7422": "leaf_port", "4222": "client_port"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The files as an operator has them, with certificates of this test."""
    made = certificates.provide(tmp_path / "tls", ["127.0.0.1", "localhost"])
    places = {"server.crt": made.chain, "server.key": made.key, "ca.crt": made.authority}
    for file in (ROOT / "deploy" / "nats").glob("*.conf"):
        text = file.read_text("utf-8")
        for name, place in places.items():
            text = text.replace(f"/etc/membridge/tls/{name}", str(place))
        (tmp_path / file.name).write_text(text)
    return tmp_path


def checked(config: Path, environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [str(find_binary()), "-t", "-c", str(config)]
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=PATIENCE)


@pytest.mark.parametrize("file", FILES)
def test_nats_server_finds_no_mistake(folder: Path, file: str) -> None:
    result = checked(folder / file, ENVIRONMENT)

    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("file", FILES)
def test_without_a_password_no_server_starts(folder: Path, file: str) -> None:
    result = checked(folder / file, {"MEMBRIDGE_NATS_NAME": "leaf1", "MEMBRIDGE_NATS_HUB": "tls://hub:7422"})

    assert result.returncode != 0
    assert "MEMBRIDGE_NATS_PASSWORD_HASH" in result.stderr


def test_limits_are_those_of_the_bundled_configuration() -> None:
    bundled = bundled_config().read_text("utf-8")
    texts = "".join((ROOT / "deploy" / "nats" / file).read_text("utf-8") for file in ("limits.conf", *FILES[:3]))
    keys = ("http", "max_payload", "max_connections", "max_subscriptions", "ping_interval", "ping_max",
            "write_deadline", "max_memory_store", "max_file_store", "sync_interval")  # fmt: skip
    for key in keys:
        (wanted,) = re.findall(rf"^\s*{key}: (.+)$", bundled, re.MULTILINE)
        assert {*re.findall(rf"^\s*{key}: (.+)$", texts, re.MULTILINE)} == {wanted}, key


@contextmanager
def running(folder: Path, file: str, name: str, **changes: str) -> Generator[str]:
    """Run a server of `file`; give its address. `changes` are further values of variables."""
    config = folder / f"{name}.conf"
    for one in (folder / "limits.conf", folder / "single.conf", folder / file):
        text = one.read_text("utf-8")
        for variable, value in {**ENVIRONMENT, **changes}.items():
            text = text.replace(f"${variable}\n", f'"{value}"\n').replace(f"${variable} ", f'"{value}" ')
        # Each server of this test has ports of its own; `start_nats` gives those of clients and monitoring.
        for port, own in PORTS.items():
            text = text.replace(f"0.0.0.0:{port}", f"127.0.0.1:{changes.get(own, '-1')}")
        (config if one.name == file else folder / one.name).write_text(text)
    with start_nats(folder / name, config=config) as server:
        yield server.url


def options(url: str, folder: Path, *, password: str = PASSWORD, replicas: int = 1) -> BusOptions:
    address = f"tls://node:{password}@{url.rpartition('/')[2]}"
    authority = folder / "tls" / "authority.pem"
    return BusOptions(urls=(address,), name="test", ca_file=authority, replicas=replicas, pace=QUICK)


async def test_one_server_lets_in_who_has_the_password(folder: Path) -> None:
    with running(folder, "single.conf", "one") as url:
        async with connect(options(url, folder), deadline=Deadline.after(PATIENCE)) as bus:
            assert bus.connected
        with pytest.raises(CredentialsError):
            async with connect(options(url, folder, password="wrong"), deadline=Deadline.after(PATIENCE)):
                pass


async def test_three_servers_are_a_cluster_with_three_copies(folder: Path) -> None:
    ports = free_ports(3)
    text = (folder / "cluster.conf").read_text("utf-8")
    for number, port in enumerate(ports, start=1):
        text = text.replace(f"nats-{number}.example.org:6222", f"127.0.0.1:{port}")
    (folder / "cluster.conf").write_text(text)
    with ExitStack() as stack:
        urls = []
        for number, port in enumerate(ports, start=1):
            (folder / "cluster.conf").write_text(text)
            name = f"nats-{number}"
            urls.append(
                stack.enter_context(
                    running(folder, "cluster.conf", name, MEMBRIDGE_NATS_NAME=name, route_port=str(port))
                )
            )
        async with asyncio.timeout(60.0):
            while True:
                try:
                    async with connect(options(urls[0], folder, replicas=3), deadline=Deadline.after(5.0)) as bus:
                        await ensure_streams(bus, replicas=3, deadline=Deadline.after(5.0))
                        return
                except MembridgeError:
                    # Until the three have a leader JetStream answers nobody.
                    await pause()


async def test_a_node_at_the_leaf_works_with_the_memory_of_the_hub(folder: Path) -> None:
    (port,) = free_ports(1)
    with (
        running(folder, "hub.conf", "hub", leaf_port=str(port)) as hub,
        running(folder, "leaf.conf", "leaf", MEMBRIDGE_NATS_HUB=f"tls://leaf:{PASSWORD}@127.0.0.1:{port}") as leaf,
    ):
        async with connect(options(hub, folder), deadline=Deadline.after(PATIENCE)) as bus:
            await ensure_streams(bus, replicas=1, deadline=Deadline.after(PATIENCE))
        plain = BusOptions(
            urls=(f"nats://node:{PASSWORD}@{leaf.rpartition('/')[2]}",), name="test", domain="hub", pace=QUICK
        )
        async with asyncio.timeout(60.0):
            while True:
                try:
                    async with connect(plain, deadline=Deadline.after(5.0)) as bus:
                        await ensure_streams(bus, replicas=1, deadline=Deadline.after(5.0))
                        return
                except MembridgeError:
                    # The line between the two is not there yet.
                    await pause()
