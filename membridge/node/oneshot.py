"""An operation of this node without its daemon: the same composition, for one request.

Takes leadership for that moment if no node leads and this one may; leaves nothing running.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from typing import TypeVar

from membridge.aio.deadline import Deadline
from membridge.bus.connection import Bus, connect
from membridge.bus.streams import open_proposals
from membridge.commits import heads
from membridge.errors import MembridgeError
from membridge.hooks.paths import hook_paths
from membridge.leadership.elector import Elector
from membridge.leadership.rules import is_eligible
from membridge.node import leadership_part
from membridge.node.bounds import bounds_of
from membridge.node.examination import Examination
from membridge.node.jobs import Jobs, RequestContext
from membridge.node.operations import Operations
from membridge.node.project import Project
from membridge.node.reached import Reached, without_daemon
from membridge.node.roles import AsSeen, ByLease, NoRoles, Roles
from membridge.settings import ProjectConfig, Settings
from membridge.snapshot.lane import Lane
from membridge.wiring.bus import Buckets, bus_options, ensure_all, open_buckets
from membridge.wiring.lane import open_lane
from membridge.wiring.store import open_store
from schemas import subjects
from schemas.leadership import Role
from schemas.node import DoctorReply
from schemas.subjects import Impact, Operation
from schemas.wire import Wire

Q = TypeVar("Q", bound=Wire)
R = TypeVar("R", bound=Wire)
T = TypeVar("T")

#: Seconds to connect and to open what is needed.
OPEN_DEADLINE = 30.0


async def run_local(
    settings: Settings,
    operation: Operation[Q, R],
    request: Wire,
    *,
    project: ProjectConfig,
    progress: Callable[[str, int, int], None] | None = None,
) -> R:
    """Do `operation` in this process and return its reply; raise what it raises."""
    name = f"membridge-cli-{settings.node.id}"
    async with connect(bus_options(settings, name, project.nkey_seed_file), deadline=Deadline.after(5.0)) as bus:
        opened = await open_buckets(bus, settings, deadline=Deadline.after(OPEN_DEADLINE))
        # A backup is put back into this machine's database alone, whatever its role.
        leads = operation.impact is Impact.WRITE and operation.name != subjects.RESTORE_BACKUP.name
        async with (
            open_store(bus, settings) as store,
            open_lane(bus, store, opened, settings, project) as lane,
            _roles(bus, lane, opened, settings, leads=leads) as roles,
        ):
            here = Project(bus, lane, roles, opened.push_leases, bounds_of(settings))
            queue = await open_proposals(bus, lane.project, deadline=Deadline.after(OPEN_DEADLINE))
            doctor = Examination(settings, project, Reached(bus, store, None, partial(without_daemon, settings)))
            operations = Operations(here, Jobs(bus, lane.project, lane.node), queue, doctor)
            operations.hooks = hook_paths(settings.node.state_dir)
            operations.running = False
            context = RequestContext(by=bus.options.caller, deadline=here.deadline(), listener=progress)
            return await operations.answer(operation, request, context)


async def examine_here(settings: Settings, project: ProjectConfig, *, deadline: Deadline) -> DoctorReply:
    """Examine everything that this process can reach; report the rest as not checked."""
    name = f"membridge-doctor-{settings.node.id}"
    async with AsyncExitStack() as stack:
        bus = await _tried(
            stack, connect(bus_options(settings, name, project.nkey_seed_file), deadline=deadline.sooner(5.0))
        )
        if isinstance(bus, Bus):
            # Where no daemon ever ran the buckets are missing, which is not a fault. A node with a key may make none.
            with suppress(MembridgeError):
                await ensure_all(bus, settings, deadline=deadline.sooner(5.0))
        store = await _tried(stack, open_store(bus if isinstance(bus, Bus) else None, settings))
        reached = Reached(bus, store, project=None, daemon=partial(without_daemon, settings))
        return await Examination(settings, project, reached).make(deadline=deadline)


async def _tried(stack: AsyncExitStack, opening: AbstractAsyncContextManager[T]) -> T | MembridgeError:
    try:
        return await stack.enter_async_context(opening)
    except MembridgeError as error:
        return error


@asynccontextmanager
async def _roles(bus: Bus, lane: Lane, opened: Buckets, settings: Settings, *, leads: bool) -> AsyncGenerator[Roles]:
    if not settings.leadership.enabled:
        yield NoRoles()
        return
    # A node whose store fails never leads: say why now, not after the wait for a role.
    if leads:
        await heads.read(lane, deadline=Deadline.after(OPEN_DEADLINE))
        # Nor does one that has to pull first, so that it need not be waited for.
        leads = is_eligible(await leadership_part.freshness_of(lane, deadline=Deadline.after(OPEN_DEADLINE)))
    if not leads:
        yield AsSeen(await leadership_part.seen(bus, lane.project, settings, deadline=Deadline.after(OPEN_DEADLINE)))
        return
    async with leadership_part.keeper_of(bus, lane, opened, settings) as (elector, _):
        await _settled(elector, settings.leadership.lease_seconds + 5.0)
        yield ByLease(elector)


async def _settled(elector: Elector, seconds: float) -> None:
    """Wait until this node leads, another one does, or this one may not; a stale lease takes its TTL to expire."""
    try:
        async with asyncio.timeout(seconds):
            view = elector.view()
            while view.role is not Role.PRIMARY:
                if view.preferred != elector.node or (view.leader is not None and view.leader != elector.node):
                    return
                view = await elector.changed(view)
    except TimeoutError:
        return
