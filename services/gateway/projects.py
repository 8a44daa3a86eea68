"""The projects that the gateway reaches, and its requests to their nodes.

Which nodes are present, and how projects are called, is read from copies of two buckets, so no page waits for a node.
"""

from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

from msgspec.structs import replace

from membridge.aio.tasks import background
from membridge.bus.connection import Bus
from membridge.bus.kv import Kv
from membridge.bus.rpc import RpcClient
from membridge.errors import InvalidRequestError, NoResponderError, NotFoundError
from schemas import buckets
from schemas.buckets import Bucket
from schemas.identity import PROJECT, InvalidTokenError, NodeId, ProjectId, node_id
from schemas.leadership import ProjectSettings, Role
from schemas.node import NodePresence, ProjectPresence
from schemas.subjects import GATEWAY, Impact, Operation
from schemas.wire import Wire
from services.web.mirror import Mirror
from services.web.routes import Call

Q = TypeVar("Q", bound=Wire)
R = TypeVar("R", bound=Wire)
V = TypeVar("V", bound=Wire)


@dataclass(frozen=True, slots=True)
class Account:
    """A connection to the nodes of one project, or of all where they share an account; copies of its two buckets."""

    project: ProjectId | None
    bus: Bus
    nodes: Mirror[NodePresence]
    settled: Mirror[ProjectSettings]

    @classmethod
    def of(cls, project: ProjectId | None, bus: Bus) -> "Account":
        """Return the account behind a connection."""
        return cls(project, bus, Mirror(Kv(bus, buckets.NODES)), Mirror(Kv(bus, buckets.SETTINGS)))


class Projects:
    """Every project of the accounts."""

    def __init__(self, accounts: tuple[Account, ...]) -> None:
        self.accounts = accounts

    def names(self) -> dict[ProjectId, str]:
        """Return the names of all projects by their ids. Raises UnavailableError while they cannot be read."""
        found: dict[ProjectId, str] = {}
        for account in self.accounts:
            if account.project is not None:
                found[account.project] = ""
            for entry in account.settled.entries().values():
                found[entry.value.project] = entry.value.name
            found |= {one.project: one.name for _, one in _served(account)}
        return dict(sorted(found.items(), key=lambda one: (one[1], one[0])))

    def nodes(self, project: ProjectId | None = None) -> list[NodePresence]:
        """Return the nodes that are present, by name, with their projects; only those of a project, with that alone."""
        found: dict[NodeId, NodePresence] = {}
        for account in self.accounts:
            for entry in account.nodes.entries().values():
                node = entry.value
                known = found.get(node.node)
                projects = [one for one in node.projects if project in {None, one.project}]
                if project is None or projects:
                    found[node.node] = replace(node, projects=[*(known.projects if known else []), *projects])
        return sorted(found.values(), key=lambda node: node.node)

    def served(self, project: ProjectId) -> list[tuple[NodePresence, ProjectPresence]]:
        """Return the nodes that serve a project, and how each sees it."""
        return [(node, node.projects[0]) for node in self.nodes(project)]

    def primary(self, project: ProjectId) -> NodeId | None:
        """Return the node that leads a project by what nodes say."""
        return next((node.node for node, one in self.served(project) if one.role is Role.PRIMARY), None)

    def checked(self, text: str) -> ProjectId:
        """Return the id of a project that is given by id or by name. Raises NotFoundError."""
        names = self.names()
        if PROJECT.fullmatch(text) and text in names:
            return ProjectId(text)
        found = [one for one, name in names.items() if name == text]
        if found:
            return found[0]
        raise NotFoundError(f"there is no project {text}", remedy="GET /api/membridge/projects lists them")

    def account(self, project: ProjectId) -> Account:
        """Return the account of a project."""
        return next(one for one in self.accounts if one.project in {None, project})

    async def ask(
        self, project: ProjectId, operation: Operation[Q, R], request: Q, *, node: str | None, call: Call
    ) -> R:
        """Return the answer of a project's node; without one of its primary, or of any node to a mere question.

        Errors: those of RpcClient; InvalidRequestError for a name that no node can have.
        """
        if node is None and operation.impact is Impact.READ and self.primary(project) is None:
            node = next((one.node for one, _ in self.served(project)), None)
        client = _client(self.account(project), call)
        try:
            tokens = {"project": project} if node is None else {"project": project, "node": node_id(node)}
        except InvalidTokenError as error:
            raise InvalidRequestError(str(error), field="node") from error
        try:
            asked = operation.to_primary() if node is None else operation
            return await client.request(asked, request, deadline=call.deadline, **tokens)
        except NoResponderError as error:
            raise (self._absent(node) if node is not None else None) or self._nobody(project, node) from error

    async def of_project(self, project: ProjectId, operation: Operation[Q, R], request: Q, *, call: Call) -> R:
        """Return the answer of any node of a project to a request about leadership."""
        try:
            client = _client(self.account(project), call)
            return await client.request(operation, request, deadline=call.deadline, project=project)
        except NoResponderError as error:
            raise self._nobody(project, None, any_node=True) from error

    async def of_daemon(self, node: NodeId, operation: Operation[Q, R], request: Q, *, call: Call) -> R:
        """Return the answer of a daemon about all its projects."""
        account = next((one for one in self.accounts if node in one.nodes.entries()), self.accounts[0])
        try:
            return await _client(account, call).request(operation, request, deadline=call.deadline, node=node)
        except NoResponderError as error:
            raise self._absent(node) or NoResponderError(
                f"no daemon of node {node} answers", remedy="start it there: `membridge up` or `membridge node`"
            ) from error

    async def check(self) -> None:
        """Raise UnavailableError while projects cannot be read."""
        self.names()

    def _absent(self, node: str) -> NotFoundError | None:
        """Return the error for a node that is not present: nothing says whether there ever was one of that name."""
        present = sorted(one.node for one in self.nodes())
        if node in present or not present:
            return None
        return NotFoundError(
            f"node {node} is not present; present nodes: {', '.join(present)}",
            remedy="start it there: `membridge up` or `membridge node`",
            field="node",
        )

    def _nobody(self, project: ProjectId, node: str | None, *, any_node: bool = False) -> NoResponderError:
        present = ", ".join(one.node for one in self.nodes(project)) or "none"
        if any_node or present == "none":
            return NoResponderError(
                f"no node of project {project} answers", remedy="start one: `membridge up` or `membridge node`"
            )
        if node is None:
            return NoResponderError(
                f"project {project} has no primary that answers; present nodes: {present}",
                remedy=f"POST /api/membridge/projects/{project}/leadership/select with a node, or start one",
            )
        return NoResponderError(
            f"node {node} of project {project} does not answer; present nodes: {present}",
            remedy="start it there: `membridge up` or `membridge node`",
        )


def _client(account: Account, call: Call) -> RpcClient:
    return RpcClient(account.bus, on_behalf_of=f"{call.identity.actor}@{GATEWAY}")


def _served(account: Account) -> Iterator[tuple[NodePresence, ProjectPresence]]:
    for entry in account.nodes.entries().values():
        for one in entry.value.projects:
            yield entry.value, one


@asynccontextmanager
async def reached(buses: Mapping[ProjectId | None, Bus]) -> AsyncGenerator[Projects]:
    """Keep the copies of all accounts current during the body. Errors: those of the bus."""
    accounts = tuple(Account.of(project, bus) for project, bus in buses.items())
    for account in accounts:
        await account.nodes.refresh()
        await account.settled.refresh()
    async with background() as group:
        for account in accounts:
            group.create_task(account.nodes.run(_unheard), name="nodes")
            group.create_task(account.settled.run(_unheard), name="projects")
        yield Projects(accounts)


@asynccontextmanager
async def current(bus: Bus, bucket: Bucket[V]) -> AsyncGenerator[Mirror[V]]:
    """Keep a copy of a bucket current during the body. Errors: those of the bus."""
    mirror = Mirror(Kv(bus, bucket))
    await mirror.refresh()
    async with background() as group:
        group.create_task(mirror.run(_unheard), name=f"copy of {bucket.name}")
        yield mirror


def _unheard() -> None:
    """Ignore that a copy is current: it was read before."""
