"""Nodes at a leaf: their server has a JetStream of its own, and the memory is the hub's."""

import asyncio
import shutil
from collections.abc import Generator
from contextlib import ExitStack
from pathlib import Path

import pytest

from membridge.bus.connection import Bus
from membridge.claudemem.memory import memory_rows
from membridge.embedded.nats_server import NatsServer, start_nats
from membridge.testing.node_process import NodeProcess
from tests.fixtures.machines import PROJECT, SAMPLE, until
from tests.fixtures.ports import free_port

LIMITS = "jetstream { max_file_store: 1GB, max_memory_store: 16MB, domain: %s, sync_interval: always }\n"


class Line:
    """A hub and a leaf; the hub can go away and come back."""

    def __init__(self, root: Path) -> None:
        self._root, self._stack, self._hub = root, ExitStack(), ExitStack()
        self._port = free_port()
        self.hub = self.start_hub()
        leaf = root / "leaf.conf"
        remote = f'leafnodes {{ reconnect: "1s", remotes: [{{ url: "nats-leaf://127.0.0.1:{self._port}" }}] }}\n'
        leaf.write_text("server_name: leaf\nhttp: 127.0.0.1:-1\n" + LIMITS % "leaf1" + remote)
        self.leaf = self._stack.enter_context(start_nats(root / "leaf", config=leaf))

    def start_hub(self) -> NatsServer:
        config = self._root / "hub.conf"
        listen = f"leafnodes {{ listen: 127.0.0.1:{self._port} }}\n"
        config.write_text("server_name: hub\nhttp: 127.0.0.1:-1\n" + LIMITS % "hub" + listen)
        port = int(self.hub.url.rpartition(":")[2]) if hasattr(self, "hub") else -1
        return self._hub.enter_context(start_nats(self._root / "hub", port=port, config=config))

    def stop_hub(self) -> None:
        self._hub.close()

    def stop(self) -> None:
        self._stack.close()
        self._hub.close()


@pytest.fixture
def line(tmp_path: Path) -> Generator[Line]:
    made = Line(tmp_path)
    yield made
    made.stop()


@pytest.fixture
def nats_url(line: Line) -> str:
    """The hub is where the test's own connection goes."""
    return line.hub.url


async def test_a_node_at_a_leaf_shares_the_hubs_memory_and_catches_up_after_a_cut(
    line: Line, bus: Bus, tmp_path: Path
) -> None:
    at_hub = NodeProcess("a", tmp_path / "a", line.hub.url, PROJECT)
    at_leaf = NodeProcess("b", tmp_path / "b", line.leaf.url, PROJECT, extra={"MEMBRIDGE_NATS_DOMAIN": "hub"})
    at_hub.database.parent.mkdir(parents=True)
    await asyncio.to_thread(shutil.copyfile, SAMPLE, at_hub.database)
    try:
        await at_hub.start()
        await until(bus, at_hub, lambda seen: seen.project.mirror_seq >= 1)
        await at_leaf.start()
        await until(bus, at_leaf, lambda seen: seen.project.mirror_seq >= 1)
        await at_leaf.write(3, "at the leaf")
        await until(bus, at_hub, lambda seen: seen.project.rows.get("observations") == 323)
        await asyncio.to_thread(line.stop_hub)
        await at_leaf.write(4, "while the line was down")
        await at_hub.write(5, "at the hub meanwhile")
        await asyncio.to_thread(line.start_hub)
        for machine in (at_hub, at_leaf):
            await until(
                bus, machine, lambda seen: seen.project.rows.get("observations") == 332 and seen.project.unsynced == 0
            )
        assert memory_rows(at_hub.database) == memory_rows(at_leaf.database)
    finally:
        await at_leaf.stop()
        await at_hub.stop()
