"""Leadership for a sweep: a primary that hands over to node b, and what follows when it was killed at that."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

from membridge.aio.deadline import Deadline
from membridge.commits import heads
from membridge.commits.progress import ProgressTracker
from membridge.leadership.elector import Elector
from membridge.leadership.rules import Freshness
from membridge.leadership.view import Election, ElectorOptions
from membridge.node.leadership_part import freshness_of
from membridge.node.project import Project
from membridge.node.roles import ByLease
from schemas.identity import NodeId
from schemas.leadership import Role
from schemas.snapshot import PushRequest
from tests.faults.world import Node, World, soon

#: Seconds of a lease here: a killed primary's successor waits for it.
LEASE = 1.2


@asynccontextmanager
async def keeping(world: World, node: Node) -> AsyncGenerator[tuple[Elector, Project]]:
    """Run a node's elector during the body, and its project by the role that it has."""
    lane, attached = node.lane, list[Project]()

    async def flush(deadline: Deadline) -> None:
        await attached[0].push(PushRequest(), ProgressTracker(), deadline=deadline)

    async def freshness() -> Freshness:
        return await freshness_of(lane, deadline=soon())

    options = ElectorOptions(lease_seconds=LEASE, preferred=NodeId("a"), grace_seconds=0.3)
    elector = Elector(
        world.bus, Election(lane.project, lane.name, lane.node), options=options, freshness=freshness, flush=flush
    )
    attached.append(Project(world.bus, lane, ByLease(elector), world.locks, node.project._bounds))
    started = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        running = group.create_task(elector.run(started.set))
        await started.wait()
        try:
            yield elector, attached[0]
        finally:
            running.cancel()


async def primary(elector: Elector, project: Project) -> int:
    """Wait until a elector's node leads, which follows the head meanwhile as a daemon does; return its epoch."""
    async with asyncio.timeout(10 * LEASE):
        view = elector.view()
        while view.role is not Role.PRIMARY:
            if await project.is_behind(deadline=soon()):
                await project.catch_up(ProgressTracker(), deadline=soon())
            try:
                async with asyncio.timeout(0.1):
                    view = await elector.changed(view)
            except TimeoutError:
                view = elector.view()
    return view.epoch


async def hand_over(world: World, node: Node, arm: Callable[[], None]) -> str:
    """Lead, then hand over to b, which is not there yet; return how that ended."""
    async with keeping(world, node) as (elector, project):
        await project.lead(await primary(elector, project), deadline=soon())
        arm()
        async with asyncio.TaskGroup() as group:
            asking = elector.select(NodeId("b"), policy=None, issued_by="a person", deadline=Deadline.after(10 * LEASE))
            task = group.create_task(asking)
            async with asyncio.timeout(10 * LEASE):
                view = elector.view()
                while view.role is Role.PRIMARY:
                    view = await elector.changed(view)
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
