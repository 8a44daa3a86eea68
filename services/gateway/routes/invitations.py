"""`/api/invitations`: lines that let machines join, asked of the enrolment service where the server runs."""

from typing import TypeVar

from membridge.bus.rpc import RpcClient
from membridge.errors import NoResponderError
from schemas import subjects
from schemas.access import InvitationInfo, InvitationRequest, InvitationsReply, InviteReply, InviteRequest
from schemas.errors import ErrorCode
from schemas.node import Empty
from schemas.subjects import Operation
from schemas.wire import Wire
from services.gateway.callers import INVITE
from services.gateway.runtime import Runtime
from services.web.routes import AnyRoute, Call, Endpoint, Method, Route

Q = TypeVar("Q", bound=Wire)
R = TypeVar("R", bound=Wire)

_AT = "/api/invitations"

LIST = Route(
    "invitations", Method.GET, _AT, Empty, InvitationsReply, "Invitations, newest first, without their secrets.", INVITE
)
NEW = Route(
    "invite", Method.POST, _AT, InviteRequest, InviteReply, "Make a line that lets one machine join; it is shown once.",
    INVITE, status=201, errors=(ErrorCode.NOT_FOUND,),
)  # fmt: skip
REVOKE = Route(
    "revoke_invitation", Method.DELETE, f"{_AT}/{{id}}", InvitationRequest, InvitationInfo,
    "Revoke an invitation that was not used.", INVITE, errors=(ErrorCode.NOT_FOUND, ErrorCode.CONFLICT),
)  # fmt: skip

RELAYED: tuple[tuple[AnyRoute, Operation[Wire, Wire]], ...] = (
    (LIST, subjects.INVITATIONS),
    (NEW, subjects.INVITE),
    (REVOKE, subjects.REVOKE_INVITATION),
)


def endpoints(tasks: Runtime) -> list[Endpoint]:
    """Return the endpoints of invitations; the enrolment service is reached over the task runtime's account."""
    return [_relayed(tasks, route, operation) for route, operation in RELAYED]


def _relayed(tasks: Runtime, route: AnyRoute, operation: Operation[Q, R]) -> Endpoint:
    async def answer(request: Q, call: Call) -> R:
        client = RpcClient(tasks.bus, on_behalf_of=f"{call.identity.actor}@{subjects.GATEWAY}")
        try:
            return await client.request(operation, request, deadline=call.deadline)
        except NoResponderError as error:
            raise NoResponderError(
                "no machine can be invited: this server takes no other machines",
                remedy="start it for them: `membridge up --listen 0.0.0.0:4222`",
            ) from error

    return route.bind(answer)
