"""Planned changes are quick and lose nothing; unplanned ones take a TTL, and only the right node takes over."""

import asyncio

from membridge.bus.connection import Bus
from membridge.bus.kv import open_bucket
from membridge.leadership.rules import Freshness
from schemas import buckets
from schemas.identity import NodeId
from schemas.leadership import Policy, Role
from schemas.node import NodePresence, ProjectPresence
from tests.integration.leadership.candidates import PROJECT, SLACK, TTL, candidate, soon

#: Seconds that a planned hand-over may take, with what a busy machine adds.
PLANNED = 0.3 + SLACK


async def test_a_selected_node_leads_within_a_moment_after_a_flush(nats_url: str) -> None:
    took: list[float] = []
    async with candidate(nats_url, "a") as a, candidate(nats_url, "b") as b:
        nodes = [a, b]
        await a.until(Role.PRIMARY)
        for turn in range(6):
            old, new = nodes[turn % 2], nodes[(turn + 1) % 2]
            began = asyncio.get_running_loop().time()
            reply = await old.elector.select(new.elector.node, policy=None, issued_by="test", deadline=soon())
            await new.until(Role.PRIMARY)
            took.append(asyncio.get_running_loop().time() - began)
            assert reply.leader is not None
            assert reply.leader.primary_node_id == new.elector.node
            assert new.elector.epoch_for_commit() == turn + 2
        assert (a.flushed, b.flushed) == ([1, 3, 5], [2, 4, 6])
    assert sorted(took)[len(took) // 2] < 0.3
    assert max(took) < PLANNED


async def test_a_flush_longer_than_the_lease_is_finished_before_the_hand_over(nats_url: str) -> None:
    async with candidate(nats_url, "a") as a, candidate(nats_url, "b") as b, asyncio.TaskGroup() as group:
        await a.until(Role.PRIMARY)
        a.flowing.clear()
        select = a.elector.select(NodeId("b"), policy=None, issued_by="test", deadline=soon())
        selected = group.create_task(select)
        await a.stays(Role.PRIMARY, seconds=1.2 * TTL)
        a.flowing.set()
        reply = await selected
        assert reply.leader is not None
        assert (reply.leader.primary_node_id, reply.leader.epoch, a.flushed) == ("b", 2, [1])
        await b.until(Role.PRIMARY)


async def test_a_selection_that_is_taken_back_during_the_flush_changes_nothing(nats_url: str) -> None:
    async with candidate(nats_url, "a") as a, candidate(nats_url, "b") as b, asyncio.TaskGroup() as group:
        await a.until(Role.PRIMARY)
        a.flowing.clear()
        select = b.elector.select(NodeId("b"), policy=None, issued_by="test", deadline=soon())
        selected = group.create_task(select)
        while a.elector.view().preferred != "b":
            await a.elector.changed(a.elector.view())
        await a.elector.select(NodeId("a"), policy=None, issued_by="test", deadline=soon())
        a.flowing.set()
        await a.stays(Role.PRIMARY, seconds=TTL / 2)
        assert (a.elector.epoch_for_commit(), b.leads) == (1, False)
        selected.cancel()


async def test_a_stopped_primary_releases_and_its_successor_starts_at_once(nats_url: str) -> None:
    async with candidate(nats_url, "b", policy=Policy.AUTO, preferred=NodeId("a")) as b:
        async with candidate(nats_url, "a", policy=Policy.AUTO) as a:
            await a.until(Role.PRIMARY)
            await b.until_it_sees("a")
        # It leaves the preferred node the time to come back, which is far less than the TTL.
        assert await b.until(Role.PRIMARY) < 0.5 + SLACK < TTL
        assert b.elector.epoch_for_commit() == 2


async def test_a_restarted_primary_that_released_leads_again_at_once(nats_url: str) -> None:
    async with candidate(nats_url, "a") as a:
        await a.until(Role.PRIMARY)
    async with candidate(nats_url, "a") as again:
        assert await again.until(Role.PRIMARY) < SLACK < TTL
        assert again.elector.epoch_for_commit() == 2


async def test_a_killed_primary_is_replaced_within_its_ttl_and_a_second(nats_url: str) -> None:
    options = {"policy": Policy.AUTO, "grace_seconds": 0.0}
    async with candidate(nats_url, "a", **options) as a, candidate(nats_url, "b", **options) as b:
        await a.until(Role.PRIMARY)
        await b.until_it_sees("a")
        await a.kill()
        assert await b.until(Role.PRIMARY) <= TTL + 1.0
        assert b.elector.epoch_for_commit() == 2
        async with asyncio.timeout(TTL):
            while (view := b.elector.view()).preferred != "b":
                await b.elector.changed(view)


async def test_a_killed_primary_leads_again_under_manual_when_it_is_back(nats_url: str) -> None:
    async with candidate(nats_url, "b", preferred=NodeId("a")) as b:
        async with candidate(nats_url, "a") as a:
            await a.until(Role.PRIMARY)
            await a.kill()
        async with candidate(nats_url, "a") as again:
            assert await again.until(Role.PRIMARY) <= TTL + 1.0
            assert (again.elector.epoch_for_commit(), b.leads) == (2, False)


async def test_who_took_over_stays_primary_when_the_old_one_returns(nats_url: str) -> None:
    async with candidate(nats_url, "b", preferred=NodeId("a"), policy=Policy.AUTO) as b:
        async with candidate(nats_url, "a", policy=Policy.AUTO) as a:
            await a.until(Role.PRIMARY)
            await a.kill()
        await b.until(Role.PRIMARY)
        async with candidate(nats_url, "a", policy=Policy.AUTO) as again:
            await again.stays(Role.SECONDARY, seconds=TTL / 2)
            assert b.elector.epoch_for_commit() == 2


async def test_the_freshest_node_takes_over_and_of_equals_the_one_of_the_smallest_id(nats_url: str, bus: Bus) -> None:
    nodes = await open_bucket(bus, buckets.NODES, replicas=1, deadline=soon())
    for name, seq in (("b", 7), ("c", 9), ("d", 9)):
        project = ProjectPresence(project=PROJECT, name="led", role=Role.SECONDARY, mirror_seq=seq)
        presence = NodePresence(node=NodeId(name), version="1", python="3", os="", arch="", projects=[project])
        await nodes.put(name, presence, deadline=soon())
    # Each believes its mirror to be level with the head, as a node does that has not heard of the newest commit.
    auto = {"policy": Policy.AUTO, "preferred": NodeId("a")}
    async with (
        candidate(nats_url, "d", stands=Freshness(9, 1, 9, 1, 1), **auto) as d,
        candidate(nats_url, "b", stands=Freshness(7, 1, 7, 1, 1), **auto) as b,
        candidate(nats_url, "c", stands=Freshness(9, 1, 9, 1, 1), **auto) as c,
    ):
        await c.until(Role.PRIMARY)
        assert not b.leads
        assert not d.leads
