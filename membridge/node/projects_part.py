"""The projects of one connection: each with its lane, elector, automatic sync and endpoints, added at any time."""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from membridge import __version__
from membridge.aio import tasks, threads
from membridge.aio.backoff import kept_running
from membridge.aio.deadline import Deadline, comes_within
from membridge.aio.lifecycle import Ready
from membridge.aio.tasks import background
from membridge.bus.connection import Bus
from membridge.bus.kv import Kv
from membridge.bus.service import Call, Endpoint, ServiceIdentity, serve
from membridge.bus.streams import WorkQueue, open_proposals
from membridge.errors import ForbiddenError, MembridgeError, RevokedError
from membridge.hooks.paths import hook_paths
from membridge.leadership.elector import Elector
from membridge.node import leadership_part, registry
from membridge.node.autosync import AutoSync, ProposalIntake
from membridge.node.bounds import bounds_of
from membridge.node.daily_audit import DailyAudit
from membridge.node.duplicate_node import instance_of
from membridge.node.examination import Examination
from membridge.node.jobs import Jobs
from membridge.node.operations import Operations
from membridge.node.presence import Presence, present
from membridge.node.project import Project
from membridge.node.reached import Reached, this_process
from membridge.node.roles import ByLease, NoRoles
from membridge.node.rules import Quiet
from membridge.node.unserved import UnservedProject
from membridge.objectstore.protocol import ObjectStore
from membridge.settings import ProjectConfig, Settings
from membridge.system import files
from membridge.system.logging import get_logger
from membridge.wiring.bus import Buckets
from membridge.wiring.lane import lane_folder, open_lane
from schemas import buckets, subjects
from schemas.identity import ProjectId
from schemas.leadership import Role
from schemas.node import (
    AddProjectRequest,
    Empty,
    NodesReply,
    ProjectsReply,
    RemoveProjectReply,
    RemoveProjectRequest,
    Revocation,
)

log = get_logger("membridge.node")

#: Seconds a project may take to open: its queue and its leadership entries.
OPEN_DEADLINE = 30.0
#: Seconds an added project may take to open, within the deadline of who asked.
ADD_DEADLINE = 20.0


@dataclass(frozen=True, slots=True)
class Hosted:
    """A project that this node hosts: its connection, while it is served what serves it, else the `failure`."""

    bus: Bus
    failure: MembridgeError
    project: Project | None
    sync: AutoSync | None
    intake: ProposalIntake | None


class _Place:
    """One project of this node: served, or with the failure that keeps it from being served."""

    def __init__(self, settings: Settings, config: ProjectConfig) -> None:
        self.config = config
        self.project: Project | None = None
        self.sync: AutoSync | None = None
        self.intake: ProposalIntake | None = None
        self.unserved = UnservedProject(settings, config)
        self.task: asyncio.Task[None] | None = None
        #: Set after the first try to open the project, however it ended.
        self.tried = asyncio.Event()
        #: Which of the two it is now; neither before the first try.
        self.served, self.failing = asyncio.Event(), asyncio.Event()

    def serves(self, project: Project) -> None:
        self.project = project
        self.failing.clear()
        self.served.set()
        self.tried.set()

    def failed(self, failure: Exception) -> bool:
        """Note the failure; return whether it is another one than before."""
        was_served, self.project = self.served.is_set(), None
        self.served.clear()
        self.failing.set()
        self.sync = self.intake = None
        is_news = self.unserved.failed(failure) or was_served
        self.tried.set()
        return is_news


class ProjectsPart:
    """Runs projects, and starts those that are added meanwhile unless the connection is one project's alone.

    A project that fails is reported and tried again, alone: the others are served meanwhile.
    """

    def __init__(
        self,
        bus: Bus,
        store: ObjectStore,
        opened: Buckets,
        settings: Settings,
        *,
        projects: Sequence[ProjectConfig],
        grows: bool = True,
    ) -> None:
        self._bus, self._store, self._opened, self._settings = bus, store, opened, settings
        self._first, self._grows = projects, grows
        self._places: dict[ProjectId, _Place] = {}
        self._adding, self._revoked, self._revoked_by = asyncio.Lock(), asyncio.Event(), ""
        self.presence = Presence(opened.nodes, settings.node.id, instance_of(settings.node.state_dir), self.projects)

    def projects(self) -> Iterable[Project | UnservedProject]:
        """Return the projects of this node, those that cannot be served now included."""
        return [place.project or place.unserved for place in self._places.values() if place.tried.is_set()]

    def hosted(self, project: ProjectId) -> Hosted | None:
        """Return how a project is hosted here, None if it is not."""
        place = self._places.get(project)
        return place and Hosted(self._bus, place.unserved.failure, place.project, place.sync, place.intake)

    def count(self) -> int:
        """Return how many projects are hosted here."""
        return len(self._places)

    def leads(self) -> bool:
        """Whether this node is primary of any of them."""
        served = [place.project for place in self._places.values() if place.project is not None]
        return any(project.roles.view().role is Role.PRIMARY for project in served)

    def identity(self) -> ServiceIdentity:
        """Return what `$SRV.INFO` says of this node."""
        return ServiceIdentity(
            name="membridge-node",
            version=__version__,
            description="One machine's claude-mem memory: push, pull, merge, leadership.",
            metadata={"node": self._settings.node.id},
        )

    async def run(self, ready: Ready) -> None:
        """Serve all projects until cancelled."""
        node = self._settings.node.id
        async with asyncio.TaskGroup() as group:
            own = [
                Endpoint(
                    operation=subjects.ADD_PROJECT,
                    subject=subjects.ADD_PROJECT.at(node=node),
                    handler=partial(self._add, group),
                ),
                Endpoint(
                    operation=subjects.REMOVE_PROJECT,
                    subject=subjects.REMOVE_PROJECT.at(node=node),
                    handler=self._remove,
                ),
                Endpoint(operation=subjects.REVOKED, subject=subjects.REVOKED.at(node=node), handler=self._revoke),
                Endpoint(operation=subjects.PROJECTS, subject=subjects.PROJECTS.at(node=node), handler=self._list),
            ]
            async with serve(self._bus, self.identity(), own):
                places = [self._begin(group, config) for config in self._first]
                opening = Deadline.after(OPEN_DEADLINE)
                for place in places:
                    # One that takes longer does not keep the node from being ready.
                    await comes_within(place.tried, opening.remaining())
                ready()
                await self._revoked.wait()
            raise self.revocation()

    def revocation(self) -> RevokedError:
        """Return why this machine's key is no longer accepted, and who revoked it if that is known."""
        if self._revoked.is_set():
            return RevokedError(f"this machine was revoked{self._revoked_by}: it no longer takes part in the memory")
        return RevokedError("NATS refuses this machine's key: it was revoked, or the server was set up anew")

    def _begin(self, group: asyncio.TaskGroup, config: ProjectConfig) -> _Place:
        place = self._places[config.id] = _Place(self._settings, config)
        place.task = group.create_task(self._keep(place), name=f"project {config.name}")
        return place

    async def _keep(self, place: _Place) -> None:
        """Serve a project until cancelled. While it fails, answer requests with the reason and retry."""
        name = place.config.name
        async with background() as group:
            group.create_task(tasks.apart(self._refuse(place), name=f"refuse for {name}"), name=f"unserved {name}")
            await kept_running(partial(self._host, place), name=name, on_failure=partial(self._failed, place))

    def _failed(self, place: _Place, failure: Exception, _pause: float) -> None:
        is_news, told = place.failed(failure), place.unserved.failure
        self.presence.touch()
        if is_news:
            log.error(
                "project not served",
                project=place.config.name,
                reason=told.message,
                remedy=told.remedy,
                exc_info=None if isinstance(failure, MembridgeError | OSError) else failure,
            )

    async def _refuse(self, place: _Place) -> None:
        """Answer for a project while it is not served."""
        while True:
            await place.failing.wait()
            async with serve(self._bus, self.identity(), place.unserved.endpoints(self._bus, self._store)):
                await place.served.wait()

    async def _host(self, place: _Place) -> None:
        bus, config = self._bus, place.config
        async with open_lane(bus, self._store, self._opened, self._settings, config, lasting=True) as lane:
            queue = await open_proposals(bus, lane.project, deadline=Deadline.after(OPEN_DEADLINE))
            if not self._settings.leadership.enabled:
                project = Project(bus, lane, NoRoles(), self._opened.push_leases, bounds_of(self._settings))
                await self._serve(place, project, queue, None)
                return
            async with leadership_part.keeper_of(bus, lane, self._opened, self._settings) as (elector, attach):
                project = Project(bus, lane, ByLease(elector), self._opened.push_leases, bounds_of(self._settings))
                attach(project)
                await self._serve(place, project, queue, elector)

    async def _serve(self, place: _Place, project: Project, queue: WorkQueue, elector: Elector | None) -> None:
        lane, bus = project.lane, self._bus
        jobs = Jobs(bus, lane.project, lane.node)
        await jobs.abandon_left()
        reached = Reached(bus, lane.store, project=None, daemon=this_process)
        operations = Operations(project, jobs, queue, Examination(self._settings, place.config, reached))
        operations.hooks = hook_paths(self._settings.node.state_dir)
        answered = operations.endpoints()
        if elector is not None:
            answered += leadership_part.endpoints_of(elector, lane.project)
        at = subjects.NODES.at(project=lane.project)
        answered.append(Endpoint(operation=subjects.NODES, subject=at, handler=self._nodes, queue="nodes"))
        async with serve(bus, self.identity(), answered), asyncio.TaskGroup() as group:
            group.create_task(project.figures.run(), name="figures")
            group.create_task(DailyAudit(project).run(), name="daily audit")
            lane_settings, by_itself = self._settings.lane, self._settings.lane.auto_sync
            sync = place.sync = AutoSync(
                project,
                jobs,
                quiet=Quiet(lane_settings.quiet_seconds, lane_settings.quiet_max_seconds),
                look_again=lane_settings.look_again_seconds if by_itself else None,
                on_change=self.presence.touch,
            )
            operations.last_error, operations.by_itself = lambda: sync.last_error, by_itself
            group.create_task(sync.run(_unheard), name="auto-sync")
            if elector is not None:
                if by_itself:
                    intake = place.intake = ProposalIntake(project, jobs, queue, on_change=self.presence.touch)
                    group.create_task(intake.run(_unheard), name="proposals")
                group.create_task(self._answer_as_primary(elector, operations, lane.project), name="as primary")
            log.info("project served", project=lane.name, database=str(lane.database))
            place.serves(project)
            self.presence.touch()
            await asyncio.Event().wait()

    async def _answer_as_primary(self, elector: Elector, operations: Operations, project: ProjectId) -> None:
        answered = [*operations.primary_endpoints(), *leadership_part.primary_endpoints_of(elector, project)]
        view = elector.view()
        while True:
            if view.role is not Role.PRIMARY:
                view = await elector.changed(view)
                continue
            async with serve(self._bus, self.identity(), answered):
                while view.role is Role.PRIMARY:
                    view = await elector.changed(view)
                    self.presence.touch()

    async def _revoke(self, request: Revocation, call: Call) -> Empty:
        # The server lets no member publish this, only its own operator. What ends the node comes after the answer.
        self._revoked_by = f" by {request.by}" if request.by else ""
        log.error("this machine was revoked", by=request.by, remedy=RevokedError.default_remedy)
        self._revoked.set()
        del call
        return Empty()

    async def _add(self, group: asyncio.TaskGroup, request: AddProjectRequest, call: Call) -> ProjectsReply:
        if not self._grows:
            raise ForbiddenError(
                "this node has a key for each project, and none for a new one",
                remedy="on the server's machine stop `membridge up`, run `membridge project add NAME --database PATH` "
                "and start it again; then for each joined machine: there `membridge nodes revoke NODE` and "
                "`membridge invite`, on the joined machine `membridge join --replace LINE`",
            )
        async with call.deadline.sooner(ADD_DEADLINE).scope(f"adding project {request.name}"), self._adding:
            config = await threads.run(registry.checked, self._settings, request.name, request.database)
            place = self._places.get(config.id)
            if place is None:
                await self._try(group, config)
            elif place.failing.is_set():
                raise place.unserved.failure
        return await self._list(Empty(), call)

    async def _try(self, group: asyncio.TaskGroup, config: ProjectConfig) -> None:
        """Serve a new project and register it. A failure or a cancelled request leaves nothing behind."""
        folder = lane_folder(self._settings, config)
        is_new = not await threads.run(folder.exists)
        place, kept = self._begin(group, config), False
        try:
            await place.tried.wait()
            if place.failing.is_set():
                raise place.unserved.failure
            await threads.run(registry.add, self._settings, config.name, str(config.database))
            kept = True
        finally:
            if not kept:
                await self._withdraw(place)
                # A registration whose answer came too late is undone too.
                await threads.run(registry.forget, self._settings, config.id)
                if is_new:
                    await threads.run(files.discard, folder)
            self.presence.touch()

    async def _remove(self, request: RemoveProjectRequest, call: Call) -> RemoveProjectReply:
        async with self._adding:
            config = await threads.run(registry.removable, self._settings, request.name)
            place = self._places.get(config.id)
            if place is None:
                raise ForbiddenError(
                    f"project {config.name} was not removed: it has a NATS account of its own",
                    remedy=f"run `membridge project remove {config.name} --project {config.name}`",
                )
            # Off the list first: whatever happens next, it is not served after the next start.
            await threads.run(registry.forget, self._settings, config.id)
            led = place.project is not None and place.project.roles.view().role is Role.PRIMARY
            await self._withdraw(place)
            self.presence.touch()
        log.info("project removed", project=config.name, by=call.by)
        left = await self._list(Empty(), call)
        return RemoveProjectReply(
            project=config.id, name=config.name, database=str(config.database), led=led, projects=left.projects
        )

    async def _withdraw(self, place: _Place) -> None:
        del self._places[place.config.id]
        if place.task is not None:
            place.task.cancel()
            await asyncio.wait({place.task})

    async def _nodes(self, request: Empty, call: Call) -> NodesReply:
        del request
        return await present(self._opened.nodes, Kv(self._bus, buckets.LEADERSHIP), deadline=call.deadline)

    async def _list(self, request: Empty, call: Call) -> ProjectsReply:
        del request, call
        return ProjectsReply(projects=[await project.presence() for project in self.projects()])


def _unheard() -> None:
    """Nothing waits for this part to be ready."""
