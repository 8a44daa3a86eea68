"""`/api/membridge`: projects, who leads them, which nodes are present. `/projects/{cid}/…` is the same for old clients.

While another server is configured (`POST /api/runtime/config`), requests are passed on to it.
"""

from dataclasses import replace

from membridge import __version__
from membridge.errors import InvalidRequestError
from schemas import subjects
from schemas.errors import ErrorCode
from schemas.gateway import (
    Leadership,
    MachineName,
    MachinesReply,
    MembridgeHealth,
    OfProject,
    ProjectList,
    ProjectSummary,
    SelectLeader,
)
from schemas.identity import ProjectId
from schemas.leadership import LeadershipReply, SelectRequest
from schemas.node import Empty, NodePresence, NodesReply
from services.gateway.callers import ADMINISTER, READ_MEMORY, WRITE_MEMORY
from services.gateway.federation import Federated
from services.gateway.machines import Machines
from services.gateway.projects import Projects
from services.web.routes import AnyRoute, Call, Endpoint, Handler, Method, Route

GET, POST, DELETE = Method.GET, Method.POST, Method.DELETE
_AT = "/api/membridge"
_ERRORS = (ErrorCode.NOT_FOUND, ErrorCode.CORRUPT_OBJECT)
#: Seconds: another server has ten, three times.
WAITS = 40.0

HEALTH = Route(
    "membridge_health", GET, f"{_AT}/health", Empty, MembridgeHealth, "Whether projects can be reached.", READ_MEMORY,
    deadline=WAITS, errors=_ERRORS,
)  # fmt: skip
PROJECTS = Route(
    "membridge_projects", GET, f"{_AT}/projects", Empty, ProjectList, "Projects, by name.", READ_MEMORY, deadline=WAITS,
    errors=_ERRORS,
)  # fmt: skip
LEADERSHIP = Route(
    "leadership", GET, f"{_AT}/projects/{{cid}}/leadership", OfProject, Leadership, "Which node leads a project.",
    READ_MEMORY, deadline=WAITS, errors=_ERRORS,
)  # fmt: skip
NODES = Route(
    "nodes", GET, f"{_AT}/projects/{{cid}}/nodes", OfProject, NodesReply, "The nodes of a project that are present.",
    READ_MEMORY, deadline=WAITS, errors=_ERRORS,
)  # fmt: skip
SELECT = Route(
    "select_leader", POST, f"{_AT}/projects/{{cid}}/leadership/select", SelectLeader, Leadership,
    "Make a node the primary of a project.", WRITE_MEMORY, deadline=WAITS, errors=(*_ERRORS, ErrorCode.CONFLICT),
)  # fmt: skip


MACHINES = Route(
    "machines", GET, "/api/nodes", Empty, MachinesReply, "Every machine: those that are present, and those that were.",
    READ_MEMORY,
)  # fmt: skip
FORGET_MACHINE = Route(
    "forget_machine", DELETE, "/api/nodes/{node}", MachineName, NodePresence, "Forget a machine that is away.",
    WRITE_MEMORY, errors=(ErrorCode.NOT_FOUND, ErrorCode.CONFLICT),
)  # fmt: skip


def for_old(route: AnyRoute) -> AnyRoute:
    """Return the same route where old clients of the control plane ask for it."""
    path = route.path.removeprefix(_AT)
    return replace(route, name=f"control_{route.name}", path=path, permission=ADMINISTER)


def endpoints(projects: Projects, federated: Federated, machines: Machines) -> list[Endpoint]:
    """Return the endpoints of projects, on both surfaces; only those of this server's own are passed on."""
    known = Answers(projects)
    here: list[tuple[AnyRoute, Handler]] = [
        (LEADERSHIP, known.leadership),
        (NODES, known.nodes),
        (SELECT, known.select),
    ]
    passed: list[tuple[AnyRoute, Handler]] = [(HEALTH, known.health), (PROJECTS, known.projects), *here]
    return [
        *(federated.endpoint(route, answer, old_path=route.path.removeprefix(_AT)) for route, answer in passed),
        *(Endpoint(for_old(route), answer) for route, answer in here),
        MACHINES.bind(machines.listed),
        FORGET_MACHINE.bind(machines.forget),
    ]


class Answers:
    """What this server itself knows of projects."""

    def __init__(self, projects: Projects) -> None:
        self._projects = projects

    async def health(self, _: Empty, __: Call) -> MembridgeHealth:
        """Count."""
        projects, nodes = self._projects.names(), self._projects.nodes()
        return MembridgeHealth(
            status="ok", service="membridge", version=__version__, projects=len(projects), nodes=len(nodes)
        )

    async def projects(self, _: Empty, __: Call) -> ProjectList:
        """List projects."""
        return ProjectList(projects=[self._summary(one, name) for one, name in self._projects.names().items()])

    async def leadership(self, request: OfProject, call: Call) -> Leadership:
        """Return who leads."""
        project = self._projects.checked(request.cid)
        asked = self._projects.of_project(project, subjects.LEADERSHIP_GET, Empty(), call=call)
        return flat(project, await asked)

    async def nodes(self, request: OfProject, _: Call) -> NodesReply:
        """List the nodes that are present."""
        project = self._projects.checked(request.cid)
        leaderless = [] if self._projects.primary(project) else [self._projects.names()[project]]
        return NodesReply(nodes=self._projects.nodes(project), leaderless=leaderless)

    async def select(self, request: SelectLeader, call: Call) -> Leadership:
        """Have a node lead."""
        project, node = self._projects.checked(request.cid), request.node or request.primary_node_id
        if node is None:
            raise InvalidRequestError("node is missing", field="node")
        wanted = SelectRequest(node=node, policy=request.policy, issued_by=call.identity.actor[:128])
        asked = self._projects.of_project(project, subjects.LEADERSHIP_SELECT, wanted, call=call)
        return flat(project, await asked)

    def _summary(self, project: ProjectId, name: str) -> ProjectSummary:
        served = self._projects.served(project)
        seen = [one for _, one in served]
        return ProjectSummary(
            canonical_id=project,
            name=name,
            primary_node_id=self._projects.primary(project),
            nodes=[node.node for node, _ in served],
            epoch=max((one.epoch for one in seen), default=0),
            head_seq=max((one.head_seq for one in seen), default=0),
            unsynced=sum(one.unsynced for one in seen),
            conflicts=sum(one.conflicts for one in seen),
            quarantined=sum(one.quarantined for one in seen),
        )


def flat(project: ProjectId, reply: LeadershipReply) -> Leadership:
    """Return who leads as old clients know it, the lease's fields beside the project's."""
    found = Leadership(
        canonical_id=project,
        policy=reply.policy,
        preferred=reply.preferred,
        needs_ui_selection=reply.needs_ui_selection,
    )
    if (leader := reply.leader) is None:
        return found
    return Leadership(
        canonical_id=project,
        primary_node_id=leader.primary_node_id,
        epoch=leader.epoch,
        issued_at=leader.issued_at,
        expires_at=leader.expires_at,
        lease_seconds=leader.lease_seconds,
        policy=reply.policy,
        issued_by=leader.issued_by,
        needs_ui_selection=reply.needs_ui_selection,
        preferred=reply.preferred,
    )
