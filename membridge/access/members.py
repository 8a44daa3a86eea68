"""The membership: a server's projects, members and invitations, and the rules between them.

Pure: takes a membership and a request, returns the next membership or refuses. Secrets are compared by their sha256 in
constant time and never kept. The caller decides which invitations have expired; this module reads no clock.
"""

import hashlib
import hmac
from collections.abc import Iterable

import msgspec
from msgspec.structs import replace

from membridge.errors import ConflictError, ForbiddenError, InvalidRequestError, MembridgeError, NotFoundError
from schemas.access import AdmitRequest, EnrolRequest, InvitationInfo, InvitationState, Member, MemberRole
from schemas.identity import NodeId, ProjectId, canonical_id
from schemas.subjects import RESERVED_WORKERS
from schemas.wire import Wire

#: Invitations that may be open at once, and ended ones that are kept to tell a replay from a forgery.
MOST_OPEN, MOST_REMEMBERED = 64, 1024
FORMAT = 1
#: A join keeps its keys in a folder of its invitation, so another one makes new keys.
_NEW_KEYS = "ask for a new invitation (`membridge invite` on the server's machine): a join with it makes new keys"


class InvitationRefusedError(ForbiddenError):
    """An invitation that is not valid here: unknown, used, expired, or for another machine."""

    default_remedy = "ask for a new invitation: `membridge invite` on the server's machine"


class Invitation(Wire, frozen=True, kw_only=True):
    """One invitation as the membership keeps it: the sha256 of its secret, its projects, and the node it is for.

    A revoked one is kept as an expired one with `revoked_at`, so that an older version can read it.
    """

    id: str
    digest: str
    projects: list[ProjectId]
    node: NodeId | None = None
    expires_at: str = ""
    state: InvitationState = InvitationState.OPEN
    used_by: NodeId | None = None
    note: str = ""
    created_at: str = ""
    created_by: str = ""
    used_at: str = ""
    revoked_at: str = ""
    revoked_by: str = ""


class Membership(Wire, frozen=True, kw_only=True):
    """All that is stored about access."""

    format: int = FORMAT
    projects: dict[ProjectId, str] = msgspec.field(default_factory=dict[ProjectId, str])
    members: dict[NodeId, Member] = msgspec.field(default_factory=dict[NodeId, Member])
    invitations: dict[str, Invitation] = msgspec.field(default_factory=dict[str, Invitation])

    def enrolled(self) -> list[Member]:
        """Return the members that are not revoked."""
        return [member for member in self.members.values() if member.revoked_at is None]


def digest_of(secret: str) -> str:
    """Return the sha256 of a secret, which alone is kept."""
    return hashlib.sha256(secret.encode()).hexdigest()


def add_projects(membership: Membership, names: Iterable[str]) -> Membership:
    """Return the membership with the projects called `names` in it."""
    return replace(membership, projects=membership.projects | {canonical_id(name): name for name in names})


def chosen(membership: Membership, names: Iterable[str]) -> list[ProjectId]:
    """Return the ids of the named projects, of all without names; raise NotFoundError for an unknown one."""
    wanted = list(names)
    for name in wanted:
        if canonical_id(name) not in membership.projects:
            raise NotFoundError(f"this server has no project {name!r}", remedy="run `membridge project list`")
    return [canonical_id(name) for name in wanted] or list(membership.projects)


def invite(membership: Membership, invitation: Invitation) -> Membership:
    """Return the membership with one more invitation; raise InvalidRequestError when too many are open."""
    opened = [item for item in membership.invitations.values() if item.state is InvitationState.OPEN]
    if len(opened) >= MOST_OPEN:
        raise InvalidRequestError(
            f"{MOST_OPEN} invitations are open, the most there may be",
            remedy="see `membridge nodes invitations`, then revoke one: `membridge nodes invitations --revoke ID`",
        )
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


def revoke_invitation(membership: Membership, invitation: str, *, by: str, now: str) -> Membership:
    """Return the membership with an invitation revoked; one that can no longer be used stays as it is.

    Raises NotFoundError, and ConflictError for one that let a machine in.
    """
    known = membership.invitations.get(invitation)
    if known is None:
        raise NotFoundError(
            f"there is no invitation {invitation}", remedy="list them: `membridge nodes invitations`", field="id"
        )
    if known.state is InvitationState.USED:
        raise ConflictError(
            f"invitation {invitation} was used by node {known.used_by}",
            remedy=f"cut that node off: `membridge nodes revoke {known.used_by}`",
            field="id",
        )
    if known.state is not InvitationState.OPEN:
        return membership
    ended = replace(known, state=InvitationState.EXPIRED, revoked_at=now, revoked_by=by)
    return replace(membership, invitations=membership.invitations | {invitation: ended})


def shown(membership: Membership, invitation: Invitation) -> InvitationInfo:
    """Return an invitation as it is shown."""
    return InvitationInfo(
        id=invitation.id,
        state=InvitationState.REVOKED if invitation.revoked_at else invitation.state,
        projects=[membership.projects.get(project, project) for project in invitation.projects],
        node=invitation.node,
        note=invitation.note,
        created_at=invitation.created_at,
        created_by=invitation.created_by,
        expires_at=invitation.expires_at,
        used_by=invitation.used_by,
        used_at=invitation.used_at,
        revoked_at=invitation.revoked_at,
        revoked_by=invitation.revoked_by,
    )


def enrol(membership: Membership, request: EnrolRequest, *, now: str) -> Membership:
    """Return the membership with the machine of `request` enrolled and its invitation used.

    The same request again, whose answer was lost, succeeds again. Raises InvitationRefusedError: its reason helps an
    honest holder of the line and tells a guesser nothing.
    """
    known = membership.invitations.get(request.invitation)
    digest = digest_of(request.secret)
    if not hmac.compare_digest(known.digest if known else digest_of(""), digest) or known is None:
        raise InvitationRefusedError("this server does not know the invitation")
    if known.revoked_at:
        raise InvitationRefusedError("the invitation was revoked")
    if known.state is InvitationState.EXPIRED:
        raise InvitationRefusedError("the invitation has expired")
    if request.node in RESERVED_WORKERS:
        raise InvitationRefusedError(
            f"the name {request.node} is reserved", remedy="run `membridge join LINE --node NAME` with another name"
        )
    there = membership.members.get(request.node)
    if known.state is InvitationState.USED:
        same = there is not None and there.revoked_at is None and _keys(there) == _keys(request)
        if known.used_by == request.node and same:
            return membership
        raise InvitationRefusedError("the invitation was used already")
    if known.node is not None and known.node != request.node:
        raise InvitationRefusedError(
            f"the invitation is for node {known.node}", remedy=f"run `membridge join LINE --node {known.node}`"
        )
    if set(request.keys) != set(known.projects):
        raise InvitationRefusedError("the request has keys for other projects than the invitation")
    if there is not None and there.revoked_at is None:
        raise InvitationRefusedError(
            f"there is already a node {request.node}",
            remedy="run `membridge join LINE --node NAME` with another name, or first "
            f"`membridge nodes revoke {request.node}` on the server's machine",
        )
    _check_keys(membership, request, InvitationRefusedError, _NEW_KEYS)
    member = Member(node=request.node, keys=dict(request.keys), enrolled_at=now, runtime_key=request.runtime_key)
    used = replace(known, state=InvitationState.USED, used_by=request.node, used_at=now)
    return replace(
        membership,
        members=membership.members | {member.node: member},
        invitations=membership.invitations | {used.id: used},
    )


def host(membership: Membership, node: NodeId, keys: dict[ProjectId, str], runtime_key: str, *, now: str) -> Membership:
    """Return the membership with the server's own machine enrolled; it needs no invitation."""
    there = membership.members.get(node)
    enrolled_at = there.enrolled_at if there else now
    member = Member(node=node, keys=keys, enrolled_at=enrolled_at, runtime_key=runtime_key)
    return replace(membership, members=membership.members | {node: member})


def admit(membership: Membership, request: AdmitRequest, *, now: str) -> Membership:
    """Return the membership with a front end admitted.

    The same request again, whose answer was lost, changes nothing. Raises InvalidRequestError for a name that is
    taken, an unknown project, a key of another member, and for a node, which needs an invitation.
    """
    if request.role is MemberRole.NODE:
        raise InvalidRequestError("a node joins by invitation", remedy=f"run `membridge invite --node {request.node}`")
    if request.node in RESERVED_WORKERS:
        raise InvalidRequestError(f"the name {request.node} is reserved", remedy="choose another name", field="node")
    there = membership.members.get(request.node)
    if there is not None and there.revoked_at is None:
        if (there.role, _keys(there)) == (request.role, _keys(request)):
            return membership
        raise InvalidRequestError(
            f"there is already a member {request.node}",
            remedy=f"choose another name, or run `membridge nodes revoke {request.node}` first",
            field="node",
        )
    if set(request.keys) - set(membership.projects):
        raise InvalidRequestError(
            "one key is for a project that this server does not have",
            remedy="run `membridge project list`",
            field="keys",
        )
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
    """Return the membership with `node` revoked; raise NotFoundError when it is not a member."""
    member = membership.members.get(node)
    if member is None or member.revoked_at is not None:
        raise NotFoundError(f"there is no member {node}", remedy="run `membridge nodes members`")
    return replace(membership, members=membership.members | {node: replace(member, revoked_at=now)})


def read(body: bytes) -> Membership:
    """Return the membership in the file's `body`; raise InvalidRequestError for anything else."""
    try:
        membership = msgspec.json.decode(body, type=Membership)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequestError(
            f"the list of members, access/roster.json, cannot be read: {error}",
            remedy="restore the file from a backup",
        ) from error
    if membership.format != FORMAT:
        raise InvalidRequestError(
            f"access/roster.json has format {membership.format}, this version reads {FORMAT}",
            remedy="upgrade membridge on this machine",
        )
    return membership


def _check_keys(
    membership: Membership, request: EnrolRequest | AdmitRequest, error: type[MembridgeError], remedy: str
) -> None:
    """Raise for a key that another member has or had, and for one that is given twice: a key is for one account."""
    if any(_keys(request) & _keys(member) for member in membership.members.values()):
        raise error("one of the keys belongs to another member", remedy=remedy)
    if len(_keys(request)) != len(request.keys) + (request.runtime_key is not None):
        raise error("the same key is given for two accounts", remedy=remedy)


def _keys(of: EnrolRequest | AdmitRequest | Member) -> set[str]:
    return {*of.keys.values(), *([of.runtime_key] if of.runtime_key else [])}
