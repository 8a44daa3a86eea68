"""The enrolment service: invites, enrols and revokes machines, and records each of these in the access log.

One change at a time: it saves the membership, has nats-server reload it, then answers. If it is killed in between, the
next start applies the saved membership. Invitations expire at the latest with the process that made them: their
lifetime is measured on a clock that nobody can set and that runs through suspend.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from membridge.access import members as rules
from membridge.access.audit_log import AccessLog
from membridge.access.invitation import Line, write
from membridge.access.members import Invitation, Membership
from membridge.access.offboarding import Offboarding
from membridge.aio import threads
from membridge.bus.service import Call, Endpoint
from membridge.errors import InvalidRequestError, MembridgeError, UnavailableError
from membridge.system import clock, files
from membridge.system.boottime import boottime
from membridge.system.logging import get_logger
from schemas import subjects
from schemas.access import (
    AccessAction,
    AccessLogReply,
    AccessRecord,
    AdmitRequest,
    EnrolReply,
    EnrolRequest,
    InvitationInfo,
    InvitationRequest,
    InvitationsReply,
    InvitationState,
    InviteReply,
    InviteRequest,
    MembersReply,
    RevokeRequest,
)
from schemas.errors import ErrorCode
from schemas.identity import NodeId
from schemas.node import Empty
from schemas.wire import encode

log = get_logger("membridge.access")

#: Refusals per minute after which every invitation is refused, so that nobody can guess a secret.
REFUSALS, MINUTE = 20, 60.0


class TooManyRefusalsError(UnavailableError):
    """So many invitations were refused that someone may be guessing secrets."""

    code = ErrorCode.RATE_LIMITED


@dataclass(frozen=True, slots=True)
class EnrolmentAddress:
    """What every invitation contains: the server's addresses and fingerprint, and the enrolment user's seed."""

    urls: tuple[str, ...]
    fingerprint: str
    seed: str


class Enrolment:
    """Serves one server. `apply` has nats-server reload a membership and returns once it has."""

    def __init__(
        self,
        folder: Path,
        membership: Membership,
        address: EnrolmentAddress,
        apply: Callable[[Membership], Awaitable[None]],
        offboarding: Offboarding,
        *,
        now: Callable[[], float] = boottime,
    ) -> None:
        self.membership = membership
        self._folder, self._address, self._apply, self._offboarding = folder, address, apply, offboarding
        self._log = AccessLog(folder / "access.log")
        self._turn, self._now = asyncio.Lock(), now
        self._ends: dict[str, float] = {}
        self._refused: list[float] = []

    async def start(self) -> None:
        """Save and apply the membership; invitations of an earlier process have expired."""
        async with self._turn:
            await self._keep(self._expired())

    async def invite(self, request: InviteRequest, call: Call) -> InviteReply:
        """Make an invitation. Errors: NotFoundError for an unknown project, InvalidRequestError at the bound."""
        secret, identifier = secrets.token_urlsafe(24), secrets.token_hex(8)
        expires_at = clock.stamp(clock.now() + timedelta(seconds=request.expires_seconds))
        async with self._turn:
            membership = self._expired()
            projects = rules.chosen(membership, request.projects)
            invitation = Invitation(
                id=identifier,
                digest=rules.digest_of(secret),
                projects=projects,
                node=request.node,
                expires_at=expires_at,
                note=request.note,
                created_at=clock.stamp(),
                created_by=call.by,
            )
            membership = rules.invite(membership, invitation)
            names = [membership.projects[project] for project in projects]
            await self._write_down(AccessAction.INVITED, request.node or "", identifier, names)
            await self._save(membership)
            self._ends[identifier] = self._now() + request.expires_seconds
        line = Line(
            urls=list(self._address.urls),
            fingerprint=self._address.fingerprint,
            id=identifier,
            secret=secret,
            door=self._address.seed,
            projects=names,
            node=request.node,
        )
        return InviteReply(id=identifier, line=write(line), projects=names, node=request.node, expires_at=expires_at)

    async def invitations(self, request: Empty, call: Call) -> InvitationsReply:
        """Return the invitations, the newest first."""
        del request, call
        membership = self._expired()
        found = [rules.shown(membership, one) for one in membership.invitations.values()]
        return InvitationsReply(invitations=found[::-1])

    async def revoke_invitation(self, request: InvitationRequest, call: Call) -> InvitationInfo:
        """Revoke an invitation; once more it changes nothing. Errors: NotFoundError, ConflictError for a used one."""
        async with self._turn:
            before = self._expired()
            membership = rules.revoke_invitation(before, request.id, by=call.by, now=clock.stamp())
            invitation = membership.invitations[request.id]
            if membership is not before:
                names = [membership.projects[project] for project in invitation.projects]
                await self._write_down(AccessAction.REVOKED, invitation.node or "", invitation.id, names)
            await self._save(membership)
        log.info("invitation revoked", invitation=request.id, by=call.by)
        return rules.shown(membership, invitation)

    async def enrol(self, request: EnrolRequest, call: Call) -> EnrolReply:
        """Enrol a machine. Errors: InvitationRefusedError, TooManyRefusalsError."""
        del call
        self._check_pace()
        async with self._turn:
            try:
                membership = rules.enrol(self._expired(), request, now=clock.stamp())
            except MembridgeError as error:
                self._refused.append(self._now())
                await self._write_down(AccessAction.REFUSED, request.node, request.invitation, reason=error.message)
                raise
            names = [membership.projects[project] for project in request.keys]
            if membership is not self.membership:
                await self._write_down(AccessAction.ENROLLED, request.node, request.invitation, names)
            await self._keep(membership)
        log.info("node enrolled", node=request.node)
        return EnrolReply(node=request.node)

    async def admit(self, request: AdmitRequest, call: Call) -> MembersReply:
        """Admit a front end. Errors: InvalidRequestError."""
        del call
        async with self._turn:
            membership = rules.admit(self.membership, request, now=clock.stamp())
            names = [membership.projects[project] for project in request.keys]
            if membership is not self.membership:
                await self._write_down(AccessAction.ADMITTED, request.node, projects=names, reason=request.role.value)
            await self._keep(membership)
        log.info("front end admitted", node=request.node)
        return self._members()

    async def revoke(self, request: RevokeRequest, call: Call) -> MembersReply:
        """Revoke a member, notify it and free what it held. Errors: NotFoundError, InvalidRequestError.

        For a member that is already revoked it repeats the rest: the server may not have reloaded then.
        """
        node = NodeId(request.node)
        if node == self._offboarding.host:
            raise InvalidRequestError(
                f"{node} runs this server and cannot be revoked",
                remedy="stop `membridge up` to end the server",
                field="node",
            )
        async with self._turn:
            known, membership = self.membership.members.get(node), self.membership
            if known is None or known.revoked_at is None:
                membership = rules.revoke(membership, node, now=clock.stamp())
                await self._write_down(AccessAction.REVOKED, node)
            member = membership.members[node]
            await self._save(membership)
            # Notified while its key is still valid, and only after the change is saved.
            led = await self._offboarding.notify(member, call.by)
            await self._apply(membership)
            await self._offboarding.free(member, call.by, led)
        log.info("node revoked", node=node, by=call.by)
        return self._members()

    async def members(self, request: Empty, call: Call) -> MembersReply:
        """Return the members, revoked ones too."""
        del request, call
        return self._members()

    async def show_log(self, request: Empty, call: Call) -> AccessLogReply:
        """Return the newest lines of the access log."""
        del request, call
        return AccessLogReply(records=await threads.run(self._log.newest))

    def inviting_endpoints(self) -> list[Endpoint]:
        """Return the endpoints about invitations, which a gateway reaches too."""
        return [
            Endpoint(operation=subjects.INVITE, subject=subjects.INVITE.at(), handler=self.invite),
            Endpoint(operation=subjects.INVITATIONS, subject=subjects.INVITATIONS.at(), handler=self.invitations),
            Endpoint(
                operation=subjects.REVOKE_INVITATION,
                subject=subjects.REVOKE_INVITATION.at(),
                handler=self.revoke_invitation,
            ),
        ]

    def operator_endpoints(self) -> list[Endpoint]:
        """Return the operator's endpoints."""
        return [
            *self.inviting_endpoints(),
            Endpoint(operation=subjects.ADMIT, subject=subjects.ADMIT.at(), handler=self.admit),
            Endpoint(operation=subjects.REVOKE, subject=subjects.REVOKE.at(), handler=self.revoke),
            Endpoint(operation=subjects.MEMBERS, subject=subjects.MEMBERS.at(), handler=self.members),
            Endpoint(operation=subjects.ACCESS_LOG, subject=subjects.ACCESS_LOG.at(), handler=self.show_log),
        ]

    def enrolment_endpoints(self) -> list[Endpoint]:
        """Return the endpoint for machines without a key."""
        return [Endpoint(operation=subjects.ENROL, subject=subjects.ENROL.at(), handler=self.enrol)]

    def _members(self) -> MembersReply:
        members = [self.membership.members[name] for name in sorted(self.membership.members)]
        return MembersReply(members=members, projects=sorted(self.membership.projects.values()))

    def _expired(self) -> Membership:
        now = self._now()
        over = [
            item.id
            for item in self.membership.invitations.values()
            if item.state is InvitationState.OPEN and self._ends.get(item.id, 0.0) <= now
        ]
        return rules.expire(self.membership, over) if over else self.membership

    def _check_pace(self) -> None:
        since = self._now() - MINUTE
        self._refused = [at for at in self._refused if at > since]
        if len(self._refused) >= REFUSALS:
            raise TooManyRefusalsError(
                f"{REFUSALS} invitations were refused within a minute", remedy="try again in a minute"
            )

    async def _keep(self, membership: Membership) -> None:
        await self._save(membership)
        await self._apply(membership)

    async def _save(self, membership: Membership) -> None:
        await threads.run(files.save, self._folder / "roster.json", encode(membership))
        self.membership = membership

    async def _write_down(
        self, action: AccessAction, node: str, invitation: str = "", projects: list[str] | None = None, reason: str = ""
    ) -> None:
        record = AccessRecord(
            at=clock.stamp(), action=action, node=node, invitation=invitation, projects=projects or [], reason=reason
        )
        await threads.run(self._log.add, record)
