"""Single memories over HTTP, on two real nodes: search, filters, pages, one, and forgetting on both machines."""

import asyncio
import sqlite3
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from membridge.bus.connection import Bus
from membridge.testing.node_process import NodeProcess
from schemas.identity import canonical_id
from tests.fixtures.gateway import SOON, Gateway, gateway_of
from tests.fixtures.machines import PROJECT, MakeMachine
from tests.fixtures.pace import pause

AT = f"/api/projects/{canonical_id(PROJECT)}/memories"
FORGET = AT.replace("/memories", "/forget")


def count(machine: NodeProcess, table: str, where: str = "1") -> int:
    """Count rows of a machine's database."""
    rows = sqlite3.connect(f"file:{machine.database}?mode=ro", uri=True)
    try:
        return int(rows.execute(f"SELECT count(*) FROM {table} WHERE {where}").fetchone()[0])
    finally:
        rows.close()


@pytest.fixture
async def node(make_machine: MakeMachine) -> NodeProcess:
    machine = make_machine("a", memory=True)
    await machine.start()
    return machine


@pytest.fixture
async def gateway(bus: Bus, nats_url: str, node: NodeProcess) -> AsyncGenerator[Gateway]:
    async with gateway_of(bus, nats_url, node.home) as made:
        async with asyncio.timeout(SOON):
            while not (found := (await made.get("/api/membridge/projects"))["projects"]) or not found[0]["head_seq"]:
                await pause()
        yield made


async def pages(gateway: Gateway, query: str, limit: int) -> list[dict[str, Any]]:
    """Return all memories of a filter, page by page."""
    found: list[dict[str, Any]] = []
    after = ""
    while True:
        page = await gateway.get(f"{AT}?{query}&limit={limit}{after}")
        found += page["memories"]
        if page["next"] is None:
            assert page["total"] == len(found)
            return found
        after = f"&after={page['next']}"


async def test_memories_are_found_by_words_and_filters_page_by_page(gateway: Gateway, node: NodeProcess) -> None:
    everything = await pages(gateway, "", 50)
    assert len(everything) == sum(count(node, one) for one in ("observations", "session_summaries", "user_prompts"))
    assert len({one["ref"] for one in everything}) == len(everything)
    assert [one["created_at"] for one in everything] == sorted((one["created_at"] for one in everything), reverse=True)
    prompts = await pages(gateway, "kind=prompt", 7)
    assert len(prompts) == count(node, "user_prompts")
    title = next(one["title"] for one in everything if one["kind"] == "observation")
    word = max(title.split(), key=len).strip(".,:;()'\"")
    hits = (await gateway.get(f"{AT}?q={word}&kind=observation"))["memories"]
    assert title in {one["title"] for one in hits}
    first = hits[0]
    begin, end = first["marks"][:2]
    assert first["snippet"][begin:end].lower().startswith(word[:3].lower())
    # What means something to the index, or to HTML, is text.
    for odd in ("%22", "AND", "NEAR(", "*", "title:", "%3Cb%3E", "a%22b%20OR"):
        assert (await gateway.ask("GET", f"{AT}?q={odd}")).status == 200, odd
    of_type = first["type"]
    assert {one["type"] for one in await pages(gateway, f"type={of_type}", 50)} == {of_type}
    where = f"project = '{first['project']}'"
    assert len(await pages(gateway, f"project={first['project']}&kind=observation", 50)) == count(
        node, "observations", where
    )
    newer = await pages(gateway, f"since={first['created_at'].replace('+', '%2B')}", 50)
    assert all(one["created_at"] >= first["created_at"] for one in newer)
    one = await gateway.get(f"{AT}/{first['ref']}")
    assert (one["memory"]["ref"], one["fields"]["title"]) == (first["ref"], first["title"])
    for path in ("observation-1-abc", "nothing", "observation-99999999999999999999-a"):
        assert (await gateway.ask("GET", f"{AT}/{path}")).status == 404, path
    for query, field in (("since=yesterday", "since"), ("after=x", "after"), ("limit=0", "limit"), ("kind=x", "kind")):
        refused = await gateway.ask("GET", f"{AT}?{query}")
        assert (refused.status, refused.error.field) == (400, field), query


async def test_what_is_forgotten_leaves_every_machine_and_comes_back_by_a_restore(
    gateway: Gateway, node: NodeProcess, make_machine: MakeMachine
) -> None:
    other = make_machine("b")
    await other.start()
    total = count(node, "observations")
    async with asyncio.timeout(SOON):
        while not other.database.exists() or count(other, "observations") != total:
            await pause()
    chosen = (await gateway.get(f"{AT}?kind=observation&limit=3"))["memories"]
    refs = [one["ref"] for one in chosen]
    preview = await gateway.post(FORGET, {"refs": refs})
    assert (preview["applied"], preview["counts"], count(node, "observations")) == (False, {"observation": 3}, total)
    assert [one["title"] for one in preview["memories"]] == [one["title"] for one in chosen]
    done = await gateway.post(FORGET, {"refs": refs, "apply": True})
    assert (done["applied"], done["forgotten"], done["outcome"]) == (True, 3, "committed")
    assert count(node, "observations") == total - 3
    assert done["backup"]
    async with asyncio.timeout(SOON):
        while count(other, "observations") != total - 3:
            await pause()
    assert (await gateway.ask("GET", f"{AT}/{refs[0]}")).status == 404
    again = await gateway.ask("POST", FORGET, {"refs": refs, "apply": True})
    assert (again.status, again.error.field) == (404, "refs")
    # On the secondary, by a filter: it proposes, the primary merges, and both have it.
    kind = {"filter": {"kind": "summary"}, "node": "b", "apply": True}
    proposed = await gateway.post(FORGET, kind)
    assert (proposed["outcome"], proposed["forgotten"]) == ("proposed", 40)
    async with asyncio.timeout(SOON):
        while count(node, "session_summaries"):
            await pause()
    # Undone.
    state = {"state": str(done["before_seq"]), "apply": True}
    await gateway.post(AT.replace("/memories", "/restore"), state)
    assert (count(node, "observations"), count(node, "session_summaries")) == (total, 40)
    for body in ({}, {"filter": {}}, {"apply": True}):
        refused = await gateway.ask("POST", FORGET, body)
        assert (refused.status, refused.error.field) == (400, "filter")
