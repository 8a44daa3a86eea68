"""Machines over HTTP: those that are present, those that were, and what each has that the shared memory lacks."""

import asyncio
from pathlib import Path

from membridge.bus.connection import Bus
from schemas.identity import canonical_id
from tests.fixtures.gateway import SOON, Gateway, gateway_of
from tests.fixtures.machines import PROJECT, MakeMachine
from tests.fixtures.pace import pause

CID = canonical_id(PROJECT)


async def names(gateway: Gateway, kind: str, expected: list[str]) -> None:
    """Wait until the machines of a kind are these."""
    async with asyncio.timeout(SOON):
        while [one["node"] for one in (await gateway.get("/api/nodes"))[kind]] != expected:
            await pause()


async def test_a_machine_that_left_is_still_listed_by_any_gateway_until_it_is_forgotten(
    bus: Bus, nats_url: str, tmp_path: Path, make_machine: MakeMachine
) -> None:
    desk, laptop = make_machine("desk", memory=True), make_machine("laptop")
    async with gateway_of(bus, nats_url, tmp_path) as gateway:
        await desk.start()
        await laptop.start()
        await names(gateway, "nodes", ["desk", "laptop"])
        assert (await gateway.ask("DELETE", "/api/nodes/laptop")).status == 409
        await laptop.stop()
        await names(gateway, "nodes", ["desk"])
        await names(gateway, "away", ["laptop"])
    # Another gateway knows it too: it is kept in KV.
    async with gateway_of(bus, nats_url, tmp_path) as gateway:
        (away,) = (await gateway.get("/api/nodes"))["away"]
        assert away["updated_at"]
        assert [one["project"] for one in away["projects"]] == [CID]
        assert (await gateway.delete("/api/nodes/laptop"))["node"] == "laptop"
        await names(gateway, "away", [])
        assert (await gateway.ask("DELETE", "/api/nodes/laptop")).status == 404


async def test_rows_that_the_shared_memory_lacks_are_named_with_the_reason(
    bus: Bus, nats_url: str, tmp_path: Path, make_machine: MakeMachine
) -> None:
    # It never pushes by itself within the test.
    desk = make_machine("desk", memory=True, MEMBRIDGE_QUIET_SECONDS="60", MEMBRIDGE_QUIET_MAX_SECONDS="3600")
    async with gateway_of(bus, nats_url, tmp_path) as gateway:
        await desk.start()
        async with asyncio.timeout(SOON):
            while not any(one["primary_node_id"] for one in (await gateway.get("/api/membridge/projects"))["projects"]):
                await pause()
        await gateway.post(f"/api/projects/{CID}/push", {})
        path = f"/api/projects/{CID}/unsynced"
        assert await gateway.get(path) == {
            "total": 0, "tables": [], "rows": [], "listed_all": True, "waiting": "nothing", "reason": "", "remedy": "",
        }  # fmt: skip
        await desk.write(3, "new")
        found = await gateway.get(f"{path}?node=desk&limit=2")
        assert found["total"] >= 3
        assert (len(found["rows"]), found["listed_all"], found["waiting"]) == (2, False, "quiet")
        assert sum(one["came"] for one in found["tables"]) == found["total"]
        everything = await gateway.get(f"{path}?limit=1000")
        assert any("new" in one["title"] for one in everything["rows"])
