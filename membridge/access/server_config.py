"""Render a membership as accounts and users in nats-server's configuration.

Pure. Each project has an account with streams of its own, and so has the task runtime; the enrolment service's two
accounts have none. The types of names and keys allow no quote, so nothing needs escaping.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from membridge.access import permissions, runtime_permissions
from membridge.access.members import Membership
from membridge.wiring.nats_permissions import EVERYTHING, Permissions
from membridge.wiring.service import Service
from schemas.access import MemberRole
from schemas.identity import NodeId, ProjectId
from schemas.subjects import Operation
from schemas.wire import Wire


@dataclass(frozen=True, slots=True)
class User:
    """A user of the server: its public key and what it may do."""

    key: str
    allowed: Permissions


@dataclass(frozen=True, slots=True)
class OwnKeys:
    """The public keys of the server's own users."""

    operator_service: str
    caller: str
    enrolment_service: str
    enrolment_user: str
    operators: dict[ProjectId, str]
    runtime_operator: str
    services: dict[str, str]
    #: By project and service, for services that ask the nodes of each project.
    in_projects: dict[ProjectId, dict[str, str]]


def render(membership: Membership, own: OwnKeys, services: Sequence[Service]) -> str:
    """Return the `accounts` block for the members that are not revoked and the installed services."""
    accounts = [
        _account(
            "DESK",
            [
                User(own.operator_service, permissions.operator_service("desk")),
                User(own.caller, permissions.caller("caller")),
            ],
            jetstream=False,
        ),
        _account(
            "DOOR",
            [
                User(own.enrolment_service, permissions.enrolment_service("doorkeeper")),
                User(own.enrolment_user, permissions.enrolment_user("door")),
            ],
            jetstream=False,
        ),
    ]
    operations = [operation for service in services for operation in service.operations]
    in_runtime = [
        User(member.runtime_key, _IN_RUNTIME[member.role](member.node, operations))
        for member in membership.enrolled()
        if member.runtime_key
    ]
    own_users = [
        User(own.runtime_operator, EVERYTHING),
        *(User(own.services[service.name], runtime_permissions.service(service)) for service in services),
    ]
    accounts.append(_account("RUNTIME", [*own_users, *in_runtime], jetstream=True))
    for project in membership.projects:
        members = [
            User(member.keys[project], _IN_PROJECT[member.role](project, member.node))
            for member in membership.enrolled()
            if project in member.keys
        ]
        asking = [User(key, permissions.service(project, name)) for name, key in own.in_projects[project].items()]
        users = [User(own.operators[project], EVERYTHING), *asking, *members]
        accounts.append(_account(account_of(project), users, jetstream=True))
    return "accounts {\n" + "".join(accounts) + "}\n"


def account_of(project: ProjectId) -> str:
    """Return the name of a project's account."""
    return f"PROJECT_{project}"


_IN_PROJECT: dict[MemberRole, Callable[[ProjectId, NodeId], Permissions]] = {
    MemberRole.NODE: permissions.node,
    MemberRole.READER: permissions.reader,
    MemberRole.GATEWAY: permissions.gateway,
}
_IN_RUNTIME: dict[MemberRole, Callable[[NodeId, Sequence[Operation[Wire, Wire]]], Permissions]] = {
    MemberRole.NODE: runtime_permissions.node,
    MemberRole.READER: runtime_permissions.reader,
    MemberRole.GATEWAY: runtime_permissions.gateway,
}


def render_users(keys: Iterable[str]) -> str:
    """Return the `authorization` block of a server for one machine: each key may do everything in the account."""
    return "authorization {\n  users = [\n" + "".join(_user(User(key, EVERYTHING)) for key in keys) + "  ]\n}\n"


def _account(name: str, users: Sequence[User], *, jetstream: bool) -> str:
    streams = "    jetstream: enabled\n" if jetstream else ""
    lines = "".join(_user(user) for user in users)
    return f"  {name} {{\n{streams}    users = [\n{lines}    ]\n  }}\n"


def _user(user: User) -> str:
    allowed = user.allowed
    if allowed == EVERYTHING:
        return f"      {{ nkey: {user.key} }}\n"
    publish, subscribe = _subjects(allowed.publish), _subjects(allowed.subscribe)
    return (
        f"      {{ nkey: {user.key}, permissions: {{\n"
        f"        publish: {publish}\n        subscribe: {subscribe}\n      }} }}\n"
    )


def _subjects(found: Iterable[str]) -> str:
    allowed = ", ".join(f'"{subject}"' for subject in found)
    return f"{{ allow: [{allowed}] }}"
