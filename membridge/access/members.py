"""The membership: the projects, their machines, the invitations that are out, and the rules between them.

Pure: takes a membership and a request, returns the next membership or refuses. Secrets are compared by their sha256 in
constant time and never kept. The caller says which invitations have expired; no wall clock is read here.
"""

import hashlib
import hmac
from collections.abc import Iterable
from enum import StrEnum

import msgspec
from msgspec.structs import replace

from membridge.errors import ForbiddenError, InvalidRequestError, MembridgeError, NotFoundError
from schemas.access import AdmitRequest, EnrolRequest, Member, MemberRole
from schemas.identity import NodeId, ProjectId, canonical_id
from schemas.subjects import RESERVED_WORKERS
from schemas.wire import Wire

#: Invitations that may be open at once, and ended ones that are remembered to tell a replay from a forgery.
MOST_OPEN, MOST_REMEMBERED = 64, 1024
FORMAT = 1


class InvitationRefusedError(ForbiddenError):
    """An invitation that lets nobody in: unknown, used, expired, or for another machine."""


class InvitationState(StrEnum):
    """What became of an invitation."""

    OPEN = "open"
    USED = "used"
    EXPIRED = "expired"


class Invitation(Wire, frozen=True, kw_only=True):
    """One invitation as the membership keeps it: the sha256 of its secret, whom and what it is for."""

    id: str
    digest: str
    projects: list[ProjectId]
    node: NodeId | None = None
    expires_at: str = ""
    state: InvitationState = InvitationState.OPEN
    used_by: NodeId | None = None


class Membership(Wire, frozen=True, kw_only=True):
    """Everything about access that is kept."""

    format: int = FORMAT
    projects: dict[ProjectId, str] = msgspec.field(default_factory=dict[ProjectId, str])
    members: dict[NodeId, Member] = msgspec.field(default_factory=dict[NodeId, Member])
    invitations: dict[str, Invitation] = msgspec.field(default_factory=dict[str, Invitation])

    def enrolled(self) -> list[Member]:
        """Return the machines that are in now."""
        return [member for member in self.members.values() if member.revoked_at is None]


def digest_of(secret: str) -> str:
    """Return what is kept of a secret."""
    return hashlib.sha256(secret.encode()).hexdigest()


def add_projects(membership: Membership, names: Iterable[str]) -> Membership:
    """Return the membership with the projects called `names` in it."""
    return replace(membership, projects=membership.projects | {canonical_id(name): name for name in names})


def chosen(membership: Membership, names: Iterable[str]) -> list[ProjectId]:
    """Return the ids of the projects that are named, of all when none is; raise NotFoundError for an unknown one."""
    wanted = list(names)
    for name in wanted:
        if canonical_id(name) not in membership.projects:
            raise NotFoundError(f"there is no project {name!r} here", remedy="see `membridge project list`")
    return [canonical_id(name) for name in wanted] or list(membership.projects)


def invite(membership: Membership, invitation: Invitation) -> Membership:
    """Return the membership with an invitation in it; raise InvalidRequestError when too many are open."""
    opened = [item for item in membership.invitations.values() if item.state is InvitationState.OPEN]
    if len(opened) >= MOST_OPEN:
        raise InvalidRequestError("too many invitations are open", remedy="wait until some are used or expire")
    kept = list(membership.invitations.values())[-MOST_REMEMBERED:]
    return replace(membership, invitations={item.id: item for item in [*kept, invitation]})


def expire(membership: Membership, over: Iterable[str]) -> Membership:
    """Return the membership with the open invitations of the ids in `over` expired."""
    changed = {
        name: replace(membership.invitations[name], state=InvitationState.EXPIRED)
        for name in over
        if name in membership.invitations and membership.invitations[name].state is InvitationState.OPEN
    }
    return replace(membership, invitations=membership.invitations | changed)


def enrol(membership: Membership, request: EnrolRequest, *, now: str) -> Membership:
    """Return the membership with the asking machine in it and its invitation used.

    The same request again, whose answer was lost, is let in again. Raises InvitationRefusedError: the reason that it
    gives helps an honest holder of the line and tells a guesser nothing.
    """
    known = membership.invitations.get(request.invitation)
    digest = digest_of(request.secret)
    if not hmac.compare_digest(known.digest if known else digest_of(""), digest) or known is None:
        raise _refused("this invitation is not known here")
    if known.state is InvitationState.EXPIRED:
        raise _refused("this invitation is expired")
    if request.node in RESERVED_WORKERS:
        raise _refused(f"no machine may be called {request.node}", "choose another name with `--node`")
    there = membership.members.get(request.node)
    if known.state is InvitationState.USED:
        same = there is not None and there.revoked_at is None and _keys(there) == _keys(request)
        if known.used_by == request.node and same:
            return membership
        raise _refused("this invitation was used already")
    if known.node is not None and known.node != request.node:
        raise _refused(f"this invitation is for node {known.node}", "join with `--node` and that name")
    if set(request.keys) != set(known.projects):
        raise _refused("the keys are not those of the invitation's projects")
    if there is not None and there.revoked_at is None:
        raise _refused(
            f"there is a node {request.node} already",
            f"choose another name with `--node`, or run `membridge nodes revoke {request.node}` first",
        )
    _check_keys(membership, request, InvitationRefusedError, "run `membridge join` again")
    member = Member(node=request.node, keys=dict(request.keys), enrolled_at=now, runtime_key=request.runtime_key)
    used = replace(known, state=InvitationState.USED, used_by=request.node)
    return replace(
        membership,
        members=membership.members | {member.node: member},
        invitations=membership.invitations | {used.id: used},
    )


def host(membership: Membership, node: NodeId, keys: dict[ProjectId, str], runtime_key: str, *, now: str) -> Membership:
    """Return the membership with the machine in it that the server itself runs on; it needs no invitation."""
    there = membership.members.get(node)
    enrolled_at = there.enrolled_at if there else now
    member = Member(node=node, keys=keys, enrolled_at=enrolled_at, runtime_key=runtime_key)
    return replace(membership, members=membership.members | {node: member})


def admit(membership: Membership, request: AdmitRequest, *, now: str) -> Membership:
    """Return the membership with a front end in it.

    The same request again, whose answer was lost, changes nothing. Raises InvalidRequestError for a name that is
    taken, an unknown project, a key that is somebody else's, and for a node: that one is invited.
    """
    if request.role is MemberRole.NODE or request.node in RESERVED_WORKERS:
        raise InvalidRequestError(
            f"{request.node} cannot be admitted as a {request.role}", remedy="machines join by `membridge invite`"
        )
    there = membership.members.get(request.node)
    if there is not None and there.revoked_at is None:
        if (there.role, _keys(there)) == (request.role, _keys(request)):
            return membership
        raise InvalidRequestError(
            f"there is a member {request.node} already",
            remedy=f"choose another name, or run `membridge nodes revoke {request.node}` first",
            field="node",
        )
    if set(request.keys) - set(membership.projects):
        raise InvalidRequestError("a key is for a project that is not here", field="keys")
    _check_keys(membership, request, InvalidRequestError, "give another folder with `--to`")
    member = Member(
        node=request.node,
        keys=dict(request.keys),
        enrolled_at=now,
        runtime_key=request.runtime_key,
        role=request.role,
    )
    return replace(membership, members=membership.members | {member.node: member})


def revoke(membership: Membership, node: NodeId, *, now: str) -> Membership:
    """Return the membership with `node` cut off; raise NotFoundError when it is not in."""
    member = membership.members.get(node)
    if member is None or member.revoked_at is not None:
        raise NotFoundError(f"no node {node} is enrolled", remedy="see `membridge nodes members`")
    return replace(membership, members=membership.members | {node: replace(member, revoked_at=now)})


def read(body: bytes) -> Membership:
    """Return the membership that was kept as `body`; raise InvalidRequestError when it is none."""
    try:
        membership = msgspec.json.decode(body, type=Membership)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequestError(
            f"the membership cannot be read: {error}", remedy="restore it from a backup"
        ) from error
    if membership.format != FORMAT:
        raise InvalidRequestError(f"the membership has format {membership.format}", remedy="upgrade membridge")
    return membership


def _check_keys(
    membership: Membership, request: EnrolRequest | AdmitRequest, error: type[MembridgeError], remedy: str
) -> None:
    """Raise for a key that is somebody's already, and for one that is given twice: a key is for one account."""
    if any(_keys(request) & _keys(member) for member in membership.members.values()):
        raise error("a key of these is another machine's", remedy=remedy)
    if len(_keys(request)) != len(request.keys) + (request.runtime_key is not None):
        raise error("one key is given twice", remedy=remedy)


def _keys(of: EnrolRequest | AdmitRequest | Member) -> set[str]:
    return {*of.keys.values(), *([of.runtime_key] if of.runtime_key else [])}


def _refused(message: str, remedy: str = "ask for a new one: `membridge invite`") -> InvitationRefusedError:
    return InvitationRefusedError(message, remedy=remedy)
