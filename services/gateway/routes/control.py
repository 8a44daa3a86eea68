"""The old control plane, for its clients: projects and machines to register, pushes and pulls to start, jobs to see."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from membridge.errors import ConflictError, MembridgeError, NotFoundError
from membridge.settings import Settings
from membridge.system import clock
from schemas import subjects
from schemas.errors import ErrorCode
from schemas.gateway import (
    AddProject,
    Agent,
    AgentName,
    AgentsReply,
    Heartbeat,
    HeartbeatReply,
    JobOf,
    JobsOf,
    ProjectList,
    RegisterAgent,
    RemoveProject,
    SyncOutcome,
    SyncReply,
    SyncRequest,
)
from schemas.identity import NodeId, ProjectId
from schemas.node import (
    AddProjectRequest,
    Empty,
    Job,
    JobRequest,
    JobsReply,
    NodePresence,
    ProjectsReply,
    RemoveProjectReply,
    RemoveProjectRequest,
)
from schemas.snapshot import PullReply, PullRequest, PushReply, PushRequest
from services.gateway.callers import ADMINISTER, WRITE_AGENT
from services.gateway.projects import Projects
from services.gateway.routes.membridge import Answers, flat
from services.web.mirror import Mirror
from services.web.routes import Call, Endpoint, Method, Route

GET, POST, DELETE = Method.GET, Method.POST, Method.DELETE
_NODE = (ErrorCode.NOT_FOUND, ErrorCode.FORBIDDEN, ErrorCode.CONFLICT, ErrorCode.DATABASE_INVALID, ErrorCode.DISK_FULL)
#: Seconds after which an agent that was not heard of counts as offline.
SILENT = 120.0
#: Machines that push or pull at once for one request.
AT_ONCE = 8

PROJECTS = Route("control_projects", GET, "/projects", Empty, ProjectList, "Projects, by name.", ADMINISTER)
ADD_PROJECT = Route(
    "add_project", POST, "/projects", AddProject, ProjectsReply, "Register a project on a machine.", ADMINISTER,
    deadline=40.0, status=201, errors=_NODE,
)  # fmt: skip
REMOVE_PROJECT = Route(
    "remove_project", DELETE, "/projects/{name}", RemoveProject, RemoveProjectReply,
    "Stop serving a project on a machine; its database stays.", ADMINISTER, deadline=60.0, errors=_NODE,
)  # fmt: skip
AGENTS = Route("agents", GET, "/agents", Empty, AgentsReply, "Machines, by name.", ADMINISTER)
ADD_AGENT = Route(
    "add_agent", POST, "/agents", RegisterAgent, Agent, "Register a machine without a node.", ADMINISTER, status=201,
    errors=(ErrorCode.CONFLICT,),
)  # fmt: skip
REMOVE_AGENT = Route(
    "remove_agent", DELETE, "/agents/{name}", AgentName, Agent, "Forget a machine without a node.", ADMINISTER,
    errors=(ErrorCode.NOT_FOUND, ErrorCode.CONFLICT),
)  # fmt: skip
HEARTBEAT = Route(
    "agent_heartbeat", POST, "/agent/heartbeat", Heartbeat, HeartbeatReply, "A sign of life of an agent.", WRITE_AGENT,
    errors=(ErrorCode.CONFLICT,),
)  # fmt: skip
PULL = Route(
    "sync_pull", POST, "/sync/pull", SyncRequest, SyncReply, "Pull on one machine, or on each.", ADMINISTER,
    deadline=600.0, errors=_NODE,
)  # fmt: skip
PUSH = Route(
    "sync_push", POST, "/sync/push", SyncRequest, SyncReply, "Push on one machine, or on each.", ADMINISTER,
    deadline=600.0, errors=_NODE,
)  # fmt: skip
JOBS = Route("jobs", GET, "/jobs", JobsOf, JobsReply, "Jobs, newest first.", ADMINISTER, errors=_NODE)
JOB = Route("job", GET, "/jobs/{id}", JobOf, Job, "A job.", ADMINISTER, errors=_NODE)


@dataclass(frozen=True, slots=True)
class Control:
    """Answers for the control plane. `agents` are the machines without a node."""

    settings: Settings
    projects: Projects
    agents: Mirror[Agent]

    @property
    def here(self) -> NodeId:
        """The node of this machine."""
        return self.settings.node.id

    @property
    def dry(self) -> bool:
        """Whether nothing is done, only answered."""
        return self.settings.claude_mem.dryrun

    async def add_project(self, request: AddProject, call: Call) -> ProjectsReply:
        """Register a project on a machine."""
        wanted = AddProjectRequest(name=request.name, database=request.database)
        return await self.projects.of_daemon(request.node or self.here, subjects.ADD_PROJECT, wanted, call=call)

    async def remove_project(self, request: RemoveProject, call: Call) -> RemoveProjectReply:
        """Stop serving a project on a machine."""
        wanted = RemoveProjectRequest(name=request.name)
        return await self.projects.of_daemon(request.node or self.here, subjects.REMOVE_PROJECT, wanted, call=call)

    async def list_agents(self, _: Empty, __: Call) -> AgentsReply:
        """List machines: nodes that are present, and registered agents."""
        found = {name: _alive(entry.value) for name, entry in self.agents.entries().items()}
        found |= {node.node: _of_node(node) for node in self.projects.nodes()}
        return AgentsReply(agents=[found[name] for name in sorted(found)])

    async def add_agent(self, request: RegisterAgent, call: Call) -> Agent:
        """Register a machine; once more it changes its address."""
        self._check_no_node(request.name)
        known = self.agents.entries().get(request.name)
        known_as = known.value if known is not None else Agent(name=request.name)
        agent = msgspec.structs.replace(known_as, url=request.url)
        await self._keep(agent, call)
        return _alive(agent)

    async def remove_agent(self, request: AgentName, call: Call) -> Agent:
        """Forget a machine."""
        self._check_no_node(request.name)
        known = self.agents.entries().get(request.name)
        if known is None:
            raise NotFoundError(f"there is no agent {request.name}", remedy="GET /agents lists them")
        await self.agents.kv.delete(request.name, revision=known.revision, deadline=call.deadline)
        await self.agents.refresh()
        return _alive(known.value)

    async def heartbeat(self, request: Heartbeat, call: Call) -> HeartbeatReply:
        """Note that an agent lives, and say who leads its projects."""
        self._check_no_node(request.node_id)
        known = self.agents.entries().get(request.node_id)
        agent = Agent(
            name=request.node_id,
            url=request.url or (known.value.url if known else ""),
            last_seen=clock.stamp(),
            version=request.version,
            projects=request.projects,
        )
        await self._keep(agent, call)
        names = self.projects.names()
        wanted = {project for project, name in names.items() if {project, name} & set(request.projects)}
        leadership = [
            flat(project, await self.projects.of_project(project, subjects.LEADERSHIP_GET, Empty(), call=call))
            for project in sorted(wanted)
            if self.projects.served(project)
        ]
        return HeartbeatReply(ok=True, leadership=leadership)

    async def pull(self, request: SyncRequest, call: Call) -> SyncReply:
        """Pull on one machine, or on each."""
        return await self._everywhere(request, "pull", call)

    async def push(self, request: SyncRequest, call: Call) -> SyncReply:
        """Push on one machine, or on each."""
        return await self._everywhere(request, "push", call)

    async def list_jobs(self, request: JobsOf, call: Call) -> JobsReply:
        """List the jobs of a project, or of all."""
        found: list[Job] = []
        for project in self._meant(request.project):
            if self.projects.served(project):
                found += (await self.projects.ask(project, subjects.JOBS, Empty(), node=None, call=call)).jobs
        return JobsReply(jobs=sorted(found, key=lambda job: (job.started_at, job.id), reverse=True))

    async def job(self, request: JobOf, call: Call) -> Job:
        """Return a job of any project."""
        for project in self._meant(None):
            if not self.projects.served(project):
                continue
            try:
                asked = JobRequest(id=request.id)
                return await self.projects.ask(project, subjects.JOB_BY_ID, asked, node=None, call=call)
            except MembridgeError as error:
                if error.code is not ErrorCode.NOT_FOUND:
                    raise
        raise NotFoundError(f"there is no job {request.id}", remedy="GET /jobs lists them")

    def _meant(self, named: str | None) -> Sequence[ProjectId]:
        return list(self.projects.names()) if named is None else [self.projects.checked(named)]

    async def _everywhere(self, request: SyncRequest, what: str, call: Call) -> SyncReply:
        project = self.projects.checked(request.project)
        present = [node.node for node, _ in self.projects.served(project)]
        named = [request.agent] if request.agent is not None else present
        if not named:
            raise NotFoundError(f"no node of project {request.project} is present", remedy="GET /agents lists machines")
        free = asyncio.Semaphore(AT_ONCE)

        async def one(node: NodeId) -> SyncOutcome:
            async with free:
                return await self._sync(project, node, what, call)

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(node), name=f"{what} on {node}") for node in named]
        results = [task.result() for task in tasks]
        return SyncReply(ok=all(result.ok for result in results), dryrun=self.dry, results=results)

    async def _sync(self, project: ProjectId, node: NodeId, what: str, call: Call) -> SyncOutcome:
        if self.dry:
            return SyncOutcome(agent=node, ok=True, outcome="dry_run")
        try:
            reply: PullReply | PushReply
            if what == "pull":
                reply = await self.projects.ask(project, subjects.PULL, PullRequest(), node=node, call=call)
            else:
                reply = await self.projects.ask(project, subjects.PUSH, PushRequest(), node=node, call=call)
        except MembridgeError as error:
            return SyncOutcome(agent=node, ok=False, outcome=error.code.value, detail=error.message)
        return SyncOutcome(agent=node, ok=True, outcome=reply.outcome.value, job_id=reply.job_id)

    async def _keep(self, agent: Agent, call: Call) -> None:
        await self.agents.kv.put(agent.name, agent, deadline=call.deadline)
        await self.agents.refresh()

    def _check_no_node(self, name: NodeId) -> None:
        if any(node.node == name for node in self.projects.nodes()):
            raise ConflictError(
                f"{name} is a node, which needs no registration", remedy="choose another name", field="name"
            )


def endpoints(control: Control) -> list[Endpoint]:
    """Return the endpoints of the control plane."""
    known = Answers(control.projects)
    return [
        PROJECTS.bind(known.projects),
        ADD_PROJECT.bind(control.add_project),
        REMOVE_PROJECT.bind(control.remove_project),
        AGENTS.bind(control.list_agents),
        ADD_AGENT.bind(control.add_agent),
        REMOVE_AGENT.bind(control.remove_agent),
        HEARTBEAT.bind(control.heartbeat),
        PULL.bind(control.pull),
        PUSH.bind(control.push),
        JOBS.bind(control.list_jobs),
        JOB.bind(control.job),
    ]


def _alive(agent: Agent) -> Agent:
    seen = bool(agent.last_seen) and (clock.now() - clock.parse(agent.last_seen)).total_seconds() < SILENT
    return msgspec.structs.replace(agent, status="online" if seen else "offline")


def _of_node(node: NodePresence) -> Agent:
    return Agent(
        name=node.node,
        url=node.addresses[0] if node.addresses else "",
        kind="node",
        status="online",
        last_seen=node.updated_at,
        version=node.version,
        projects=[one.name for one in node.projects],
    )
