"""Projects with an account each: one is added by the way that is printed, listed, and removed with its own key."""

import json
from pathlib import Path
from typing import Any

import pytest

from membridge.aio.deadline import Deadline
from membridge.bus.connection import connect
from membridge.bus.rpc import RpcClient
from membridge.errors import RemoteError
from membridge.settings import load
from membridge.testing.node_process import NodeProcess
from membridge.wiring.bus import bus_options
from schemas import subjects
from schemas.node import RemoveProjectRequest
from tests.fixtures.machines import SOON, command
from tests.integration.access.sites import OTHER, SHARED, eventually, site

WORK = "work"


async def listed(machine: NodeProcess) -> dict[str, dict[str, Any]]:
    """Return the projects of a machine by name."""
    return {item["name"]: item for item in (await command(machine, "project", "list"))["projects"]}


async def test_a_project_is_added_listed_and_removed_where_each_has_an_account(tmp_path: Path) -> None:
    async with site(tmp_path) as place:
        a, b = place.host, await place.joined("b")
        add = ("project", "add", WORK, "--database", str(a.home / "work.db"))
        code, output = await a.command(*add)
        assert code, output
        # The printed remedy, in its order.
        steps = ["stop `membridge up`", "`membridge project add", "nodes revoke", "membridge invite", "join --replace"]
        found = [output.find(step) for step in steps]
        assert -1 not in found, output
        assert found == sorted(found)
        await a.stop()
        await command(a, *add)
        await a.start("up")

        async def all_lead() -> bool:
            there = await listed(a)
            return set(there) == {SHARED, OTHER, WORK} and {item["role"] for item in there.values()} == {"primary"}

        await eventually(all_lead, a)
        await command(a, "nodes", "revoke", "b")
        code, output = await b.command("join", "--replace", await place.invite("--node", "b"), "--once")
        assert code == 0, output
        assert set(await listed(b)) == {SHARED, OTHER, WORK}

        # Over another account it is refused with the way that works.
        settings = load(a.environment(), a.home)
        options = bus_options(settings, "test", settings.projects[0].nkey_seed_file)
        async with connect(options, deadline=Deadline.after(SOON)) as bus:
            with pytest.raises(RemoteError, match="it has a NATS account of its own") as refused:
                await RpcClient(bus).request(subjects.REMOVE_PROJECT, RemoveProjectRequest(name=WORK), node="a")
        assert f"`membridge project remove {WORK} --project {WORK}`" in refused.value.remedy
        removed = await command(a, "project", "remove", WORK, "--project", WORK, "--yes")
        assert removed["led"]
        assert set(await listed(a)) == {SHARED, OTHER}
        code, output = await a.command("status", "--json", "--project", OTHER)
        assert (code, json.loads(output)["running"]) == (0, True)
