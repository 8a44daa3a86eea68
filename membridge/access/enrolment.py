"""The desk: invites machines, lets them in, cuts them off, and writes down what it did.

One change at a time: the roster is saved, then the server is brought to agree with it, then the answer leaves. Killed
in between, the next start applies the saved roster. Invitations end with the process that made them: their time is
measured by a clock that nobody can set and that runs through suspend.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from membridge.access import members as rules
from membridge.access.audit_log import AccessLog
from membridge.access.farewell import Farewell
from membridge.access.invitation import Line, write
from membridge.access.members import Invitation, InvitationState, Roster
from membridge.aio import threads
from membridge.bus.lease import boottime
from membridge.bus.service import Call, Endpoint
from membridge.errors import InvalidRequestError, MembridgeError, UnavailableError
from membridge.system import files
from membridge.system.logging import get_logger
from schemas import subjects
from schemas.access import (
    AccessAction,
    AccessLogReply,
    AccessRecord,
    AdmitRequest,
    EnrolReply,
    EnrolRequest,
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

#: Refusals per minute after which everybody has to wait: a secret cannot be tried out.
REFUSALS, MINUTE = 20, 60.0


class TooManyRefusalsError(UnavailableError):
    """Somebody tries invitations out."""

    code = ErrorCode.RATE_LIMITED


@dataclass(frozen=True, slots=True)
class Door:
    """What every invitation says: how the server is reached and known, and the seed of the user that may ask in."""

    urls: tuple[str, ...]
    fingerprint: str
    seed: str


class Desk:
    """Answers for one server. `apply` brings the server to agree with a roster and returns when it does."""

    def __init__(
        self,
        folder: Path,
        roster: Roster,
        door: Door,
        apply: Callable[[Roster], Awaitable[None]],
        farewell: Farewell,
        *,
        now: Callable[[], float] = boottime,
    ) -> None:
        self.roster = roster
        self._folder, self._door, self._apply, self._farewell = folder, door, apply, farewell
        self._log = AccessLog(folder / "access.log")
        self._turn, self._now = asyncio.Lock(), now
        self._ends: dict[str, float] = {}
        self._refused: list[float] = []

    async def start(self) -> None:
        """Save and apply the roster; what was open when the last process ended is over."""
        async with self._turn:
            await self._keep(self._expired())

    async def invite(self, request: InviteRequest, call: Call) -> InviteReply:
        """Make an invitation. Errors: NotFoundError for an unknown project, InvalidRequestError when too many are."""
        del call
        secret, identifier = secrets.token_urlsafe(24), secrets.token_hex(8)
        expires_at = (datetime.now(UTC) + timedelta(seconds=request.expires_seconds)).isoformat(timespec="seconds")
        async with self._turn:
            roster = self._expired()
            projects = rules.chosen(roster, request.projects)
            invitation = Invitation(
                id=identifier,
                digest=rules.digest_of(secret),
                projects=projects,
                node=request.node,
                expires_at=expires_at,
            )
            roster = rules.invite(roster, invitation)
            names = [roster.projects[project] for project in projects]
            await self._write_down(AccessAction.INVITED, request.node or "", identifier, names)
            await self._save(roster)
            self._ends[identifier] = self._now() + request.expires_seconds
        line = Line(
            urls=list(self._door.urls),
            fingerprint=self._door.fingerprint,
            id=identifier,
            secret=secret,
            door=self._door.seed,
            projects=names,
            node=request.node,
        )
        return InviteReply(id=identifier, line=write(line), projects=names, node=request.node, expires_at=expires_at)

    async def enrol(self, request: EnrolRequest, call: Call) -> EnrolReply:
        """Let a machine in. Errors: InvitationRefusedError, TooManyRefusalsError."""
        del call
        self._check_pace()
        async with self._turn:
            try:
                roster = rules.enrol(self._expired(), request, now=_now())
            except MembridgeError as error:
                self._refused.append(self._now())
                await self._write_down(AccessAction.REFUSED, request.node, request.invitation, reason=error.message)
                raise
            names = [roster.projects[project] for project in request.keys]
            if roster is not self.roster:
                await self._write_down(AccessAction.ENROLLED, request.node, request.invitation, names)
            await self._keep(roster)
        log.info("node enrolled", node=request.node)
        return EnrolReply(node=request.node)

    async def admit(self, request: AdmitRequest, call: Call) -> MembersReply:
        """Let a front end in. Errors: InvalidRequestError."""
        del call
        async with self._turn:
            roster = rules.admit(self.roster, request, now=_now())
            names = [roster.projects[project] for project in request.keys]
            if roster is not self.roster:
                await self._write_down(AccessAction.ADMITTED, request.node, projects=names, reason=request.role.value)
            await self._keep(roster)
        log.info("front end admitted", node=request.node)
        return self._members()

    async def revoke(self, request: RevokeRequest, call: Call) -> MembersReply:
        """Cut a node off; it is told, and what it held is free. Errors: NotFoundError, InvalidRequestError.

        Asked again for one that is revoked already, it does the rest again: the server may not have read its files.
        """
        node = NodeId(request.node)
        if node == self._farewell.host:
            raise InvalidRequestError(
                f"{node} runs this server and cannot be revoked",
                remedy="stop `membridge up` to end the server",
                field="node",
            )
        async with self._turn:
            known, roster = self.roster.members.get(node), self.roster
            if known is None or known.revoked_at is None:
                roster = rules.revoke(roster, node, now=_now())
                await self._write_down(AccessAction.REVOKED, node)
            member = roster.members[node]
            await self._save(roster)
            # Told while its key still counts, and only of what is saved.
            led = await self._farewell.tell(member, call.by)
            await self._apply(roster)
            await self._farewell.free(member, call.by, led)
        log.info("node revoked", node=node, by=call.by)
        return self._members()

    async def members(self, request: Empty, call: Call) -> MembersReply:
        """Return who is or was in."""
        del request, call
        return self._members()

    async def show_log(self, request: Empty, call: Call) -> AccessLogReply:
        """Return the newest lines of the access log."""
        del request, call
        return AccessLogReply(records=await threads.run(self._log.newest))

    def operator_endpoints(self) -> list[Endpoint]:
        """Return what the operator may ask."""
        return [
            Endpoint(operation=subjects.INVITE, subject=subjects.INVITE.at(), handler=self.invite),
            Endpoint(operation=subjects.ADMIT, subject=subjects.ADMIT.at(), handler=self.admit),
            Endpoint(operation=subjects.REVOKE, subject=subjects.REVOKE.at(), handler=self.revoke),
            Endpoint(operation=subjects.MEMBERS, subject=subjects.MEMBERS.at(), handler=self.members),
            Endpoint(operation=subjects.ACCESS_LOG, subject=subjects.ACCESS_LOG.at(), handler=self.show_log),
        ]

    def door_endpoints(self) -> list[Endpoint]:
        """Return what a machine at the door may ask."""
        return [Endpoint(operation=subjects.ENROL, subject=subjects.ENROL.at(), handler=self.enrol)]

    def _members(self) -> MembersReply:
        members = [self.roster.members[name] for name in sorted(self.roster.members)]
        return MembersReply(members=members, projects=sorted(self.roster.projects.values()))

    def _expired(self) -> Roster:
        now = self._now()
        over = [
            item.id
            for item in self.roster.invitations.values()
            if item.state is InvitationState.OPEN and self._ends.get(item.id, 0.0) <= now
        ]
        return rules.expire(self.roster, over) if over else self.roster

    def _check_pace(self) -> None:
        since = self._now() - MINUTE
        self._refused = [at for at in self._refused if at > since]
        if len(self._refused) >= REFUSALS:
            raise TooManyRefusalsError("too many invitations were refused", remedy="try again in a minute")

    async def _keep(self, roster: Roster) -> None:
        await self._save(roster)
        await self._apply(roster)

    async def _save(self, roster: Roster) -> None:
        await threads.run(files.save, self._folder / "roster.json", encode(roster))
        self.roster = roster

    async def _write_down(
        self, action: AccessAction, node: str, invitation: str = "", projects: list[str] | None = None, reason: str = ""
    ) -> None:
        record = AccessRecord(
            at=_now(), action=action, node=node, invitation=invitation, projects=projects or [], reason=reason
        )
        await threads.run(self._log.add, record)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
