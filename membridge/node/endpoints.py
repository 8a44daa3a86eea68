"""The subjects this node answers on, bound to what answers them. No logic: a table of endpoints."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from membridge.bus.service import Call, Endpoint
from membridge.node.operations import Operations
from membridge.node.request_context import RequestContext
from schemas import subjects
from schemas.identity import NodeId, ProjectId
from schemas.subjects import Operation
from schemas.wire import Wire

#: The group that answers for one node. While a project is opened anew, what refused requests and what serves them
#: overlap for a moment; each request reaches one of the two.
QUEUE = "node"

Q = TypeVar("Q", bound=Wire)
R = TypeVar("R", bound=Wire)


def of_node(operations: Operations, project: ProjectId, node: NodeId) -> list[Endpoint]:
    """Return the endpoints of one project that name this node."""
    return [
        Endpoint(
            operation=operation,
            subject=operation.at(project=project, node=node),
            handler=_handler(operations, operation),
            queue=QUEUE,
        )
        for operation in subjects.NODE_OPERATIONS
    ]


def of_primary(operations: Operations, project: ProjectId) -> list[Endpoint]:
    """Return the endpoints that only the primary of a project answers on."""
    return [
        Endpoint(
            operation=operation.to_primary(),
            subject=operation.to_primary().at(project=project),
            handler=_handler(operations, operation),
        )
        for operation in subjects.NODE_OPERATIONS
    ]


def _handler(operations: Operations, operation: Operation[Wire, Wire]) -> Callable[[Wire, Call], Awaitable[Wire]]:
    async def handle(request: Wire, call: Call) -> Wire:
        return await operations.answer(operation, request, RequestContext(by=call.by, deadline=call.deadline))

    return handle
