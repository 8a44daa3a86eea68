"""Two machines with one name, as a copied SD card makes them: found, refused, explained."""

import asyncio
import json
import re
import shutil

from membridge.aio.deadline import Deadline
from membridge.bus.connection import Bus
from membridge.bus.kv import Kv
from membridge.testing.node_process import NodeProcess
from schemas.buckets import NODES
from schemas.identity import NodeId
from schemas.node import NodePresence
from tests.fixtures.machines import SOON, MakeMachine, until


async def copy_of(machine: NodeProcess) -> NodeProcess:
    """Return a machine that has everything of `machine`, which is not running, its name too."""
    home = machine.home.with_name("copy")
    await asyncio.to_thread(shutil.copytree, machine.home, home)
    return NodeProcess(machine.name, home, machine.nats_url, machine.project, extra=machine.extra)


async def test_the_copy_does_not_start_beside_the_first_and_says_why(make_machine: MakeMachine, bus: Bus) -> None:
    a = make_machine("a", memory=True)
    await a.start()
    await until(bus, a, lambda seen: seen.project.mirror_seq >= 1)
    await a.stop()
    copy = await copy_of(a)
    await a.start()
    await until(bus, a, lambda seen: seen.project.mirror_seq >= 1)
    await copy.start()
    try:
        assert copy.process is not None
        async with asyncio.timeout(SOON):
            assert await copy.process.wait() == 1
        said = copy.log.read_text()
        assert "another machine is also called a" in said
        assert "MEMBRIDGE_NODE_ID" in said
        # A time of another machine, in the form that every page has.
        assert re.search(r"started \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d\b", said)
        await until(bus, a, lambda seen: seen.project.mirror_seq >= 1)
        # Under a name of its own it is one more machine.
        renamed = NodeProcess("b", copy.home, a.nats_url, a.project, extra=a.extra)
        await renamed.start()
        copy.process = renamed.process
        await until(bus, renamed, lambda seen: seen.project.mirror_seq >= 1)
    finally:
        await copy.stop()


async def test_a_restart_is_not_taken_for_a_copy(make_machine: MakeMachine, bus: Bus) -> None:
    a = make_machine("a", memory=True)
    await a.start()
    await until(bus, a, lambda seen: seen.project.mirror_seq >= 1)
    await a.kill()
    await a.start()
    async with asyncio.timeout(10.0):
        await until(bus, a, lambda seen: seen.project.mirror_seq >= 1)


async def test_a_node_that_meets_its_double_later_stops(make_machine: MakeMachine, bus: Bus) -> None:
    a = make_machine("a", memory=True)
    await a.start()
    await until(bus, a, lambda seen: seen.project.mirror_seq >= 1)
    # What a double writes that was on the other side of a partition.
    nodes = Kv(bus, NODES)
    double = NodePresence(node=NodeId("a"), version="0", python="", os="Linux", arch="", instance="another")
    await nodes.put("a", double, deadline=Deadline.after(5.0))
    await a.command("status")
    assert a.process is not None
    async with asyncio.timeout(SOON):
        assert await a.process.wait() == 1
    assert "another machine is also called a" in a.log.read_text()
    assert json.loads((await make_machine("b").command("nodes", "--json"))[1])["nodes"][0]["instance"] == "another"
