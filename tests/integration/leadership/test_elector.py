"""Electors that agree: who starts leading, who does not, and what they say."""

import asyncio

import pytest

from membridge.bus.connection import Bus
from membridge.errors import InvalidRequestError, LeaseLostError
from membridge.leadership.rules import Freshness
from schemas import subjects
from schemas.events import LeadershipChanged, decode_event
from schemas.identity import NodeId
from schemas.leadership import Policy, Role
from tests.integration.leadership.candidates import PROJECT, TTL, candidate, leaders, soon


async def test_the_first_node_leads_and_a_second_one_follows(nats_url: str) -> None:
    async with candidate(nats_url, "a") as a, candidate(nats_url, "b") as b:
        await a.until(Role.PRIMARY)
        assert a.elector.epoch_for_commit() == 1
        await b.until_it_sees("a")
        assert b.elector.view().role is Role.SECONDARY
        with pytest.raises(LeaseLostError, match="not primary of led"):
            b.elector.epoch_for_commit()
        reply = await b.elector.current(deadline=soon())
        assert (reply.leader and reply.leader.primary_node_id, reply.preferred) == ("a", "a")


async def test_of_two_nodes_that_start_at_once_one_leads(nats_url: str) -> None:
    async with candidate(nats_url, "z") as z, candidate(nats_url, "y") as y, asyncio.TaskGroup() as group:
        waits = {group.create_task(node.until(Role.PRIMARY, seconds=60)) for node in (z, y)}
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        assert len(leaders([z, y])) == 1
        follower = y if z.leads else z
        await follower.stays(Role.SECONDARY, seconds=TTL / 2)
        for task in waits:
            task.cancel()


async def test_a_lease_is_renewed_for_longer_than_its_ttl(nats_url: str) -> None:
    async with candidate(nats_url, "a") as a, candidate(nats_url, "b", policy=Policy.AUTO) as b:
        await a.until(Role.PRIMARY)
        await a.stays(Role.PRIMARY, seconds=1.3 * TTL)
        assert (a.elector.epoch_for_commit(), b.leads) == (1, False)


async def test_under_manual_nobody_takes_over_and_an_operator_can_select(nats_url: str) -> None:
    async with candidate(nats_url, "b", preferred=NodeId("a")) as b:
        async with candidate(nats_url, "a") as a:
            await a.until(Role.PRIMARY)
        await b.until_it_sees(None)
        reply = await b.elector.current(deadline=soon())
        assert (reply.leader, reply.needs_ui_selection) == (None, True)
        await b.stays(Role.SECONDARY, seconds=TTL / 2)
        reply = await b.elector.select(NodeId("b"), policy=None, issued_by="operator", deadline=soon())
        assert reply.leader is not None
        assert (reply.leader.epoch, reply.leader.issued_by) == (2, "operator")
        await b.until(Role.PRIMARY)


async def test_a_primary_that_resigned_stays_out_until_it_is_selected(nats_url: str) -> None:
    async with candidate(nats_url, "a") as a:
        await a.until(Role.PRIMARY)
        reply = await a.elector.resign(deadline=soon())
        assert (reply.leader, a.flushed) == (None, [1])
        await a.stays(Role.SECONDARY, seconds=TTL / 2)
        await a.elector.select(NodeId("a"), policy=None, issued_by="operator", deadline=soon())
        await a.until(Role.PRIMARY)
        assert a.elector.epoch_for_commit() == 2


async def test_a_primary_that_resigned_leads_again_after_a_restart(nats_url: str) -> None:
    async with candidate(nats_url, "a") as a:
        await a.until(Role.PRIMARY)
        await a.elector.resign(deadline=soon())
    async with candidate(nats_url, "a") as again:
        assert await again.until(Role.PRIMARY) < TTL


async def test_a_lagging_node_does_not_lead_until_it_caught_up(nats_url: str) -> None:
    behind, level = Freshness(1, 10, 5, 100, 4), Freshness(5, 100, 5, 100, 4)
    async with candidate(nats_url, "a", preferred=NodeId("late")) as a, candidate(nats_url, "late", stands=behind) as b:
        await b.stays(Role.SECONDARY, seconds=TTL / 2)
        b.freshness = level
        await b.until(Role.PRIMARY)
        assert b.elector.epoch_for_commit() == 5
        assert not a.leads


async def test_selecting_a_node_that_is_not_there_is_refused(nats_url: str) -> None:
    async def only_a(node: NodeId) -> bool:
        return node == "a"

    async with candidate(nats_url, "a", is_present=only_a) as a:
        await a.until(Role.PRIMARY)
        with pytest.raises(InvalidRequestError, match="ghost is not present"):
            await a.elector.select(NodeId("ghost"), policy=None, issued_by="", deadline=soon())
        assert a.leads


async def test_each_change_is_an_event_that_says_who_and_why(nats_url: str, bus: Bus) -> None:
    subject = subjects.EVENT.format(project=PROJECT, kind="leadership_changed", node="*")
    told: list[tuple[int, str | None, str, str]] = []
    async with bus.subscribe(subject) as events:
        async with candidate(nats_url, "a") as a, candidate(nats_url, "b") as b:
            await a.until(Role.PRIMARY)
            await a.elector.select(NodeId("b"), policy=None, issued_by="operator", deadline=soon())
            await b.until(Role.PRIMARY)
        async with asyncio.timeout(5.0):
            while len(told) < 4:
                event = decode_event((await anext(events)).body)
                assert isinstance(event, LeadershipChanged)
                told.append((event.epoch, event.primary, event.reason, event.issued_by))
    assert sorted(told, key=lambda entry: (entry[0], entry[1] is None)) == [
        (1, "a", "acquired", "a"),
        (1, None, "handed over", "operator"),
        (2, "b", "acquired", "operator"),
        (2, None, "stopped", "b"),
    ]
