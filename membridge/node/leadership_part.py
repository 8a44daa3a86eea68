"""Leadership of one project on this node: the elector with what it needs to know, and the operations on it."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

from membridge.aio import threads
from membridge.aio.deadline import Deadline
from membridge.aio.tasks import background
from membridge.bus.caller import LONGEST
from membridge.bus.connection import Bus
from membridge.bus.kv import Kv
from membridge.bus.service import Call, Endpoint
from membridge.commits import chain, heads
from membridge.commits.progress import ProgressTracker
from membridge.errors import MembridgeError
from membridge.leadership.elector import Elector
from membridge.leadership.rules import Freshness
from membridge.leadership.view import Election, ElectorOptions
from membridge.node.project import Project
from membridge.settings import Settings
from membridge.snapshot.lane import Lane
from membridge.wiring.bus import Buckets
from schemas import buckets, subjects
from schemas.identity import NodeId, ProjectId
from schemas.leadership import LeadershipReply, Policy, SelectRequest
from schemas.node import Empty
from schemas.snapshot import PushRequest

#: Seconds that reading the head for the candidate check may take.
STANDING_DEADLINE = 5.0


@asynccontextmanager
async def keeper_of(
    bus: Bus, lane: Lane, opened: Buckets, settings: Settings
) -> AsyncGenerator[tuple[Elector, Callable[[Project], None]]]:
    """Run a project's elector during the body. The second value tells it the project to flush before a hand-over."""
    attached: list[Project] = []

    async def flush(deadline: Deadline) -> None:
        for project in attached:
            await project.push(PushRequest(), ProgressTracker(), deadline=deadline)

    async def is_present(node: NodeId) -> bool:
        return await opened.nodes.get(node, deadline=Deadline.after(STANDING_DEADLINE)) is not None

    async def freshness() -> Freshness:
        return await freshness_of(lane, deadline=Deadline.after(STANDING_DEADLINE))

    leadership = settings.leadership
    options = ElectorOptions(
        lease_seconds=leadership.lease_seconds,
        policy=leadership.policy,
        preferred=leadership.primary_node_id,
        grace_seconds=leadership.grace_seconds,
        replicas=settings.nats.replicas,
        is_present=is_present,
    )
    elector = Elector(
        bus, Election(lane.project, lane.name, lane.node), options=options, freshness=freshness, flush=flush
    )
    started = asyncio.Event()
    async with background() as group:
        group.create_task(elector.run(started.set), name="elector")
        await started.wait()
        yield elector, attached.append


async def freshness_of(lane: Lane, *, deadline: Deadline) -> Freshness:
    """Return how this node stands against the head, for the candidate check and the next epoch."""
    position = await threads.run(lane.mirror.position)
    try:
        known = await heads.read(lane, deadline=deadline)
    except MembridgeError:
        # A node that cannot read the head is not a candidate.
        return Freshness(mirror_seq=0, mirror_rows=0, head_seq=1, head_rows=1, head_epoch=0)
    seen = position.epoch if position else 0
    if known is None:
        return Freshness(mirror_seq=0, mirror_rows=0, head_seq=0, head_rows=0, head_epoch=seen)
    head = known.record
    rows = sum(head.rows.values())
    current = position is not None and position.sha256 == head.sha256
    # Whose mirror saw more than the stores still know has the newest memory, and is the one to recover it.
    saw_all = current or chain.went_back(head, position)
    return Freshness(
        mirror_seq=head.seq if current else position.seq if position else 0,
        mirror_rows=rows if saw_all else 0,
        head_seq=head.seq,
        head_rows=rows,
        head_epoch=max(head.epoch, seen),
    )


async def seen(bus: Bus, project: ProjectId, settings: Settings, *, deadline: Deadline) -> LeadershipReply:
    """Return leadership as the buckets have it, read by a process that takes no part in it."""
    lease = await Kv(bus, buckets.LEADERSHIP).get(project, deadline=deadline)
    settled = await Kv(bus, buckets.SETTINGS).get(project, deadline=deadline)
    policy = settled.value.policy if settled else settings.leadership.policy
    return LeadershipReply(
        leader=lease.value if lease else None,
        policy=policy,
        preferred=settled.value.preferred if settled else None,
        needs_ui_selection=lease is None and policy is Policy.MANUAL,
    )


def endpoints_of(elector: Elector, project: ProjectId) -> list[Endpoint]:
    """Return the leadership operations that any node of the project answers, one of them each time."""

    async def get(request: Empty, call: Call) -> LeadershipReply:
        del request
        return await elector.current(deadline=call.deadline)

    async def select(request: SelectRequest, call: Call) -> LeadershipReply:
        # A front end names the person for whom it asks; the bus says which key or machine asked.
        by = f"{request.issued_by} by {call.by}" if request.issued_by else call.by
        return await elector.select(request.node, policy=request.policy, issued_by=by[:LONGEST], deadline=call.deadline)

    return [
        Endpoint(
            operation=subjects.LEADERSHIP_GET,
            subject=subjects.LEADERSHIP_GET.at(project=project),
            handler=get,
            queue="leadership",
        ),
        Endpoint(
            operation=subjects.LEADERSHIP_SELECT,
            subject=subjects.LEADERSHIP_SELECT.at(project=project),
            handler=select,
            queue="leadership",
        ),
    ]


def primary_endpoints_of(elector: Elector, project: ProjectId) -> list[Endpoint]:
    """Return the leadership operation that the primary alone answers."""

    async def resign(request: Empty, call: Call) -> LeadershipReply:
        del request
        return await elector.resign(issued_by=call.by, deadline=call.deadline)

    subject = subjects.LEADERSHIP_RESIGN.at(project=project)
    return [Endpoint(operation=subjects.LEADERSHIP_RESIGN, subject=subject, handler=resign)]
