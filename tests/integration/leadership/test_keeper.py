"""Keepers on a real server: one primary per epoch, epochs that only grow, quick changes, none by mistake."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field

import pytest

from membridge.bus.connection import Bus
from membridge.deadline import Deadline
from membridge.errors import InvalidRequestError, LeaseLostError, MembridgeError
from membridge.leadership.keeper import Contest, Keeper, KeeperOptions, boottime
from membridge.leadership.rules import Standing
from schemas.identity import NodeId, canonical_id
from schemas.leadership import Policy, Role

PROJECT = canonical_id("led")
TTL = 3.0
EMPTY = Standing(0, 0, 0, 0, 0)


@dataclass(slots=True)
class Contender:
    """A keeper, how its node stands, and whether it was asked to flush."""

    keeper: Keeper
    task: "asyncio.Task[None]"
    standing: Standing = EMPTY
    flushed: list[int] = field(default_factory=list)
    offset: float = 0.0

    async def until(self, role: Role) -> float:
        """Wait for the role; return the seconds it took."""
        began = asyncio.get_running_loop().time()
        async with asyncio.timeout(TTL * 3):
            view = self.keeper.view()
            while view.role is not role:
                view = await self.keeper.changed(view)
        return asyncio.get_running_loop().time() - began


Start = Callable[..., "asyncio.Future[Contender]"]


@asynccontextmanager
async def contender(bus: Bus, name: str, *, stands: Standing = EMPTY, **options: object) -> AsyncGenerator[Contender]:
    made: list[Contender] = []

    async def standing() -> Standing:
        return made[0].standing if made else stands

    async def flush(deadline: Deadline) -> None:
        deadline.check("flush")
        made[0].flushed.append(made[0].keeper.epoch_for_commit())

    def now() -> float:
        return boottime() + (made[0].offset if made else 0.0)

    keeper = Keeper(
        bus,
        Contest(PROJECT, "led", NodeId(name)),
        options=KeeperOptions(lease_seconds=TTL, grace_seconds=0.5, now=now, **options),  # type: ignore[arg-type]
        standing=standing,
        flush=flush,
    )
    started = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(keeper.run(started.set))
        made.append(Contender(keeper, task, stands))
        await started.wait()
        try:
            yield made[0]
        finally:
            task.cancel()


def soon() -> Deadline:
    return Deadline.after(10.0)


async def test_the_first_node_leads_and_a_second_one_follows(bus: Bus) -> None:
    async with contender(bus, "a") as a, contender(bus, "b") as b:
        await a.until(Role.PRIMARY)
        assert a.keeper.epoch_for_commit() == 1
        assert b.keeper.view().role is Role.SECONDARY
        with pytest.raises(LeaseLostError):
            b.keeper.epoch_for_commit()
        reply = await b.keeper.current(deadline=soon())
        assert (reply.leader and reply.leader.primary_node_id, reply.preferred) == ("a", "a")


async def test_select_hands_over_within_a_moment_after_a_flush(bus: Bus) -> None:
    async with contender(bus, "a") as a, contender(bus, "b") as b:
        await a.until(Role.PRIMARY)
        began = asyncio.get_running_loop().time()
        reply = await a.keeper.select(NodeId("b"), policy=None, issued_by="test", deadline=soon())
        assert reply.leader is not None
        assert reply.leader.primary_node_id == "b"
        await b.until(Role.PRIMARY)
        assert asyncio.get_running_loop().time() - began < 1.0
        assert a.flushed == [1]
        assert b.keeper.epoch_for_commit() == 2
        await a.until(Role.SECONDARY)


async def test_a_stopped_primary_releases_and_its_successor_starts_at_once(bus: Bus) -> None:
    async with contender(bus, "b", policy=Policy.AUTO) as b:
        await b.until(Role.PRIMARY)
        async with contender(bus, "a", policy=Policy.AUTO) as a:
            await a.keeper.select(NodeId("a"), policy=None, issued_by="test", deadline=soon())
            await a.until(Role.PRIMARY)
        assert await b.until(Role.PRIMARY) < 2.0
        assert b.keeper.epoch_for_commit() == 3


async def test_under_manual_nobody_takes_over_and_an_operator_can_select(bus: Bus) -> None:
    async with contender(bus, "b", preferred=NodeId("a")) as b:
        async with contender(bus, "a") as a:
            await a.until(Role.PRIMARY)
        reply = await b.keeper.current(deadline=soon())
        assert (reply.leader, reply.needs_ui_selection) == (None, True)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.0):
                await b.until(Role.PRIMARY)
        await b.keeper.select(NodeId("b"), policy=None, issued_by="operator", deadline=soon())
        await b.until(Role.PRIMARY)


async def test_a_primary_that_resigned_does_not_take_the_lease_back(bus: Bus) -> None:
    async with contender(bus, "a") as a:
        await a.until(Role.PRIMARY)
        reply = await a.keeper.resign(deadline=soon())
        assert reply.leader is None
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.5):
                await a.until(Role.PRIMARY)
        await a.keeper.select(NodeId("a"), policy=None, issued_by="operator", deadline=soon())
        await a.until(Role.PRIMARY)
        assert a.keeper.epoch_for_commit() == 2


async def test_a_lagging_node_is_not_made_primary_until_it_caught_up(bus: Bus) -> None:
    behind = Standing(1, 10, 5, 100, 4)
    async with contender(bus, "a", preferred=NodeId("late")) as a, contender(bus, "late", stands=behind) as late:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.5):
                await late.until(Role.PRIMARY)
        late.standing = Standing(5, 100, 5, 100, 4)
        await late.until(Role.PRIMARY)
        assert late.keeper.epoch_for_commit() == 5
        assert a.keeper.view().role is Role.SECONDARY


async def test_after_a_suspend_longer_than_the_lease_a_primary_knows_at_once(bus: Bus) -> None:
    async with contender(bus, "a") as a:
        await a.until(Role.PRIMARY)
        a.offset = TTL
        assert a.keeper.view().role is Role.SECONDARY
        with pytest.raises(LeaseLostError):
            a.keeper.epoch_for_commit()
        await a.until(Role.PRIMARY)
        assert a.keeper.epoch_for_commit() > 1


async def test_selecting_a_node_that_is_not_there_is_refused(bus: Bus) -> None:
    async def nobody(node: NodeId) -> bool:
        return node == "a"

    async with contender(bus, "a", is_present=nobody) as a:
        await a.until(Role.PRIMARY)
        with pytest.raises(InvalidRequestError, match="ghost is not present"):
            await a.keeper.select(NodeId("ghost"), policy=None, issued_by="", deadline=soon())
        assert a.keeper.view().role is Role.PRIMARY


async def test_a_killed_primary_is_replaced_within_its_ttl_and_a_second(bus: Bus) -> None:
    async with contender(bus, "b", policy=Policy.AUTO, preferred=NodeId("a")) as b, AsyncExitStack() as stack:
        a = await stack.enter_async_context(contender(bus, "a", policy=Policy.AUTO))
        await a.until(Role.PRIMARY)
        # Killed: it neither renews nor releases.
        a.keeper._held = None
        a.task.cancel()
        with suppress(asyncio.CancelledError):
            await a.task
        assert await b.until(Role.PRIMARY) < TTL + 0.5 + 1.0
        assert b.keeper.epoch_for_commit() == 2


async def test_over_many_terms_each_epoch_has_one_primary_and_epochs_only_grow(bus: Bus) -> None:
    led: list[tuple[int, str]] = []
    async with contender(bus, "a") as a, contender(bus, "b") as b, contender(bus, "c") as c:
        nodes = {"a": a, "b": b, "c": c}
        await a.until(Role.PRIMARY)
        for turn in range(30):
            name = "abc"[(turn * 2 + 1) % 3]
            with suppress(MembridgeError):
                await nodes["abc"[turn % 3]].keeper.select(NodeId(name), policy=None, issued_by="test", deadline=soon())
            await nodes[name].until(Role.PRIMARY)
            led.append((nodes[name].keeper.epoch_for_commit(), name))
            assert sum(node.keeper.view().role is Role.PRIMARY for node in nodes.values()) == 1
    epochs = dict(led)
    assert all(epochs[epoch] == name for epoch, name in led)
    assert [epoch for epoch, _ in led] == sorted(epoch for epoch, _ in led)
