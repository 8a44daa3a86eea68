"""Leadership for a sweep: a primary that hands over to node b, and what follows when it was killed at that."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

from membridge.aio.deadline import Deadline
from membridge.commits import heads
from membridge.commits.progress import Steps
from membridge.leadership.elector import Keeper
from membridge.leadership.rules import Standing
from membridge.leadership.view import Contest, KeeperOptions
from membridge.node.leadership_part import standing_of
from membridge.node.project import Project
from membridge.node.roles import ByLease
from schemas.identity import NodeId
from schemas.leadership import Role
from schemas.snapshot import PushRequest
from tests.faults.world import Node, World, soon

#: Seconds of a lease here: a killed primary's successor waits for it.
LEASE = 1.2


@asynccontextmanager
async def keeping(world: World, node: Node) -> AsyncGenerator[tuple[Keeper, Project]]:
    """Run a node's keeper during the body, and its project by the role that it has."""
    lane, attached = node.lane, list[Project]()

    async def flush(deadline: Deadline) -> None:
        await attached[0].push(PushRequest(), Steps(), deadline=deadline)

    async def standing() -> Standing:
        return await standing_of(lane, deadline=soon())

    options = KeeperOptions(lease_seconds=LEASE, preferred=NodeId("a"), grace_seconds=0.3)
    keeper = Keeper(
        world.bus, Contest(lane.project, lane.name, lane.node), options=options, standing=standing, flush=flush
    )
    attached.append(Project(world.bus, lane, ByLease(keeper), world.locks, node.project._bounds))
    started = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        running = group.create_task(keeper.run(started.set))
        await started.wait()
        try:
            yield keeper, attached[0]
        finally:
            running.cancel()


async def primary(keeper: Keeper, project: Project) -> int:
    """Wait until a keeper's node leads, which follows the head meanwhile as a daemon does; return its epoch."""
    async with asyncio.timeout(10 * LEASE):
        view = keeper.view()
        while view.role is not Role.PRIMARY:
            if await project.is_behind(deadline=soon()):
                await project.catch_up(Steps(), deadline=soon())
            try:
                async with asyncio.timeout(0.1):
                    view = await keeper.changed(view)
            except TimeoutError:
                view = keeper.view()
    return view.epoch


async def hand_over(world: World, node: Node, arm: Callable[[], None]) -> str:
    """Lead, then hand over to b, which is not there yet; return how that ended."""
    async with keeping(world, node) as (keeper, project):
        await project.lead(await primary(keeper, project), deadline=soon())
        arm()
        async with asyncio.TaskGroup() as group:
            asking = keeper.select(NodeId("b"), policy=None, issued_by="a person", deadline=Deadline.after(10 * LEASE))
            task = group.create_task(asking)
            async with asyncio.timeout(10 * LEASE):
                view = keeper.view()
                while view.role is Role.PRIMARY:
                    view = await keeper.changed(view)
            task.cancel()
    return "handed over"


async def select(world: World, a: Node, b: Node) -> int:
    """Let both run again and make b primary; return its epoch."""
    known = await heads.read(a.lane, deadline=soon())
    before = known.record.epoch if known else 0
    async with keeping(world, b) as (theirs, project), keeping(world, a) as (ours, _):
        async with asyncio.TaskGroup() as group:
            leading = group.create_task(primary(theirs, project))
            deadline = Deadline.after(10 * LEASE)
            await ours.select(NodeId("b"), policy=None, issued_by="a person", deadline=deadline)
        epoch = leading.result()
        assert epoch > before, f"epoch {epoch} after {before}"
        await project.lead(epoch, deadline=soon())
    return epoch
