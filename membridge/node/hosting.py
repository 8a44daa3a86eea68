"""The projects of one connection: each with its lane, keeper, automatic sync and endpoints, added at any time."""

import asyncio
from collections.abc import Iterable, Sequence

from membridge import __version__, blocking
from membridge.bus.connection import Bus
from membridge.bus.service import Call, Endpoint, ServiceIdentity, serve
from membridge.bus.streams import open_proposals
from membridge.deadline import Deadline
from membridge.errors import ForbiddenError
from membridge.leadership.keeper import Keeper
from membridge.lifecycle import Ready
from membridge.logging import get_logger
from membridge.node import endpoints, leading, registry
from membridge.node.autosync import AutoSync, ProposalDesk
from membridge.node.doctor import Doctor
from membridge.node.instance import instance_of
from membridge.node.jobs import Jobs
from membridge.node.opening import Buckets, make_project, open_lane
from membridge.node.operations import Operations
from membridge.node.presence import Presence
from membridge.node.project import Project
from membridge.node.roles import ByLease, NoRoles
from membridge.node.rules import Quiet
from membridge.objectstore.protocol import ObjectStore
from membridge.settings import ProjectConfig, Settings
from schemas import subjects
from schemas.identity import ProjectId
from schemas.leadership import Role
from schemas.node import AddProjectRequest, Empty, ProjectsReply

log = get_logger("membridge.node")

#: Seconds a project may take to open: its queue and its leadership entries.
OPEN_DEADLINE = 30.0
#: Projects waiting to be started.
WAITING = 64


class Hosting:
    """Runs projects, and starts those that are added meanwhile unless the connection is one project's alone."""

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
        self._projects: dict[ProjectId, Project] = {}
        self._new: asyncio.Queue[tuple[ProjectConfig, asyncio.Event]] = asyncio.Queue(WAITING)
        self.presence = Presence(opened.nodes, settings.node.id, instance_of(settings.node.state_dir), self.projects)

    def projects(self) -> Iterable[Project]:
        """Return the projects that are served now."""
        return list(self._projects.values())

    def leads(self) -> bool:
        """Whether this node is primary of any of them."""
        return any(project.roles.view().role is Role.PRIMARY for project in self.projects())

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
        own = [
            Endpoint(operation=subjects.ADD_PROJECT, subject=subjects.ADD_PROJECT.at(node=node), handler=self._add),
            Endpoint(operation=subjects.PROJECTS, subject=subjects.PROJECTS.at(node=node), handler=self._list),
        ]
        async with asyncio.TaskGroup() as group, serve(self._bus, self.identity(), own):
            started = [self._start(group, config) for config in self._first]
            for event in started:
                await event.wait()
            ready()
            while True:
                config, event = await self._new.get()
                await self._start(group, config).wait()
                event.set()

    def _start(self, group: asyncio.TaskGroup, config: ProjectConfig) -> asyncio.Event:
        event = asyncio.Event()
        group.create_task(self._host(config, event.set), name=f"project {config.name}")
        return event

    async def _host(self, config: ProjectConfig, ready: Ready) -> None:
        async with open_lane(self._bus, self._store, self._opened, self._settings, config) as lane:
            if not self._settings.leadership.enabled:
                project = make_project(self._bus, lane, NoRoles(), self._opened, self._settings)
                await self._serve(project, None, ready)
                return
            async with leading.keeper_of(self._bus, lane, self._opened, self._settings) as (keeper, attach):
                project = make_project(self._bus, lane, ByLease(keeper), self._opened, self._settings)
                attach(project)
                await self._serve(project, keeper, ready)

    async def _serve(self, project: Project, keeper: Keeper | None, ready: Ready) -> None:
        lane, bus = project.lane, self._bus
        queue = await open_proposals(bus, lane.project, deadline=Deadline.after(OPEN_DEADLINE))
        jobs = Jobs(bus, lane.project, lane.node)
        operations = Operations(project, jobs, queue, Doctor(bus, project, self._settings))
        answered = endpoints.of_node(operations, lane.project, lane.node)
        if keeper is not None:
            answered += leading.endpoints_of(keeper, lane.project)
        self._projects[lane.project] = project
        try:
            async with serve(bus, self.identity(), answered), asyncio.TaskGroup() as group:
                if self._settings.lane.auto_sync:
                    quiet = Quiet(self._settings.lane.quiet_seconds, self._settings.lane.quiet_max_seconds)
                    sync = AutoSync(project, jobs, quiet=quiet, on_change=self.presence.touch)
                    operations.last_error = lambda: sync.last_error
                    group.create_task(sync.run(_unheard), name="auto-sync")
                if keeper is not None:
                    if self._settings.lane.auto_sync:
                        desk = ProposalDesk(project, jobs, queue, on_change=self.presence.touch)
                        group.create_task(desk.run(_unheard), name="proposals")
                    group.create_task(self._answer_as_primary(keeper, operations, lane.project), name="as primary")
                log.info("project served", project=lane.name, database=str(lane.database))
                ready()
                await asyncio.Event().wait()
        finally:
            del self._projects[lane.project]

    async def _answer_as_primary(self, keeper: Keeper, operations: Operations, project: ProjectId) -> None:
        answered = [*endpoints.of_primary(operations, project), *leading.primary_endpoints_of(keeper, project)]
        view = keeper.view()
        while True:
            if view.role is not Role.PRIMARY:
                view = await keeper.changed(view)
                continue
            async with serve(self._bus, self.identity(), answered):
                while view.role is Role.PRIMARY:
                    view = await keeper.changed(view)
                    self.presence.touch()

    async def _add(self, request: AddProjectRequest, call: Call) -> ProjectsReply:
        if not self._grows:
            raise ForbiddenError(
                "this node has a key for each project and none for a new one",
                remedy="add the project on the server's machine, restart `membridge up` there, and join again",
            )
        config = await blocking.run(registry.add, self._settings, request.name, request.database)
        if config.id not in self._projects:
            event = asyncio.Event()
            async with call.deadline.scope(f"starting project {config.name}"):
                await self._new.put((config, event))
                await event.wait()
            self.presence.touch()
        return await self._list(Empty(), call)

    async def _list(self, request: Empty, call: Call) -> ProjectsReply:
        del request, call
        return ProjectsReply(projects=[await project.presence() for project in self.projects()])


def _unheard() -> None:
    """Nobody waits for this part in particular."""
