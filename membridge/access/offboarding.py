"""What revoking a node does beside cutting it off: notify the node, and free at once what it held.

Nothing here may delay the cut: a failure is logged, and what the node held then expires a little later.
"""

from collections.abc import Callable, Mapping
from typing import TypeVar

import msgspec

from membridge.aio.deadline import Deadline
from membridge.bus.connection import Bus
from membridge.bus.kv import Kv
from membridge.bus.publisher import announce
from membridge.bus.rpc import RpcClient
from membridge.errors import MembridgeError, NoResponderError, RevisionMovedError
from membridge.system import clock
from membridge.system.logging import get_logger
from schemas import buckets, subjects
from schemas.access import Member, MemberRole
from schemas.buckets import PushLeaseRecord
from schemas.events import LeadershipChanged
from schemas.identity import NodeId, ProjectId
from schemas.leadership import LeaderRecord
from schemas.node import NodePresence, Revocation
from schemas.wire import Wire

V = TypeVar("V", bound=Wire)

log = get_logger("membridge.access")

#: Seconds to notify a node, and to free what it held in one project.
NOTIFY, FREE = 2.0, 5.0


class Offboarding:
    """Acts as the operator of each project's account. `host` is the node on the server's own machine."""

    def __init__(self, host: NodeId, accounts: Mapping[ProjectId, Bus]) -> None:
        self.host, self._accounts = host, accounts

    async def notify(self, member: Member, by: str) -> dict[ProjectId, LeaderRecord]:
        """Notify a node of its revocation; one that does not run learns it when the server refuses its key.

        Returns the leaderships that the node holds: a notified node gives them back itself. Takes `NOTIFY` seconds at
        most, however many projects the node has.
        """
        if member.role is not MemberRole.NODE:
            return {}
        deadline = Deadline.after(NOTIFY)
        led = await self._led(member, deadline=deadline)
        for bus in self._of(member).values():
            try:
                await RpcClient(bus).request(
                    subjects.REVOKED, Revocation(by=by[:256]), deadline=deadline, node=member.node
                )
            except NoResponderError:
                continue
            except MembridgeError as error:
                log.info("node not told of its revocation", node=member.node, reason=error.message)
            break
        return led

    async def _led(self, member: Member, *, deadline: Deadline) -> dict[ProjectId, LeaderRecord]:
        led: dict[ProjectId, LeaderRecord] = {}
        for project, bus in self._of(member).items():
            try:
                entry = await Kv(bus, buckets.LEADERSHIP).get(project, deadline=deadline)
            except MembridgeError as error:
                log.warning("leadership not looked at", node=member.node, project=project, reason=error.message)
                continue
            if entry is not None and entry.value.primary_node_id == member.node:
                led[project] = entry.value
        return led

    async def free(self, member: Member, by: str, led: Mapping[ProjectId, LeaderRecord]) -> None:
        """Free what a revoked node held in each of its projects: leadership, push lease, presence."""
        node = member.node
        for project, bus in self._of(member).items():
            try:
                deadline = Deadline.after(FREE)
                await _no_preference(bus, project, node, by, deadline=deadline)
                found = await _delete(Kv(bus, buckets.LEADERSHIP), project, _is_primary(node), deadline=deadline)
                if was := found or led.get(project):
                    await self._announce(bus, project, was, by)
                await _delete(Kv(bus, buckets.PUSH_LEASES), project, _is_owner(node), deadline=deadline)
                await _delete(Kv(bus, buckets.NODES), node, _any, deadline=deadline)
            except MembridgeError as error:
                log.warning("not given back", node=node, project=project, reason=error.message)

    async def _announce(self, bus: Bus, project: ProjectId, led: LeaderRecord, by: str) -> None:
        log.warning("primary revoked", project=project, node=led.primary_node_id, epoch=led.epoch, by=by)
        event = LeadershipChanged(
            project=project,
            node=self.host,
            at=clock.stamp(),
            epoch=led.epoch,
            primary=None,
            reason="revoked",
            issued_by=by,
        )
        await announce(bus, event)

    def _of(self, member: Member) -> dict[ProjectId, Bus]:
        return {project: self._accounts[project] for project in member.keys if project in self._accounts}


async def _no_preference(bus: Bus, project: ProjectId, node: NodeId, by: str, *, deadline: Deadline) -> None:
    """Drop the project's preference for `node`; its policy stays."""
    settings = Kv(bus, buckets.SETTINGS)
    while (entry := await settings.get(project, deadline=deadline)) is not None and entry.value.preferred == node:
        wanted = msgspec.structs.replace(entry.value, preferred=None, updated_by=by)
        try:
            await settings.update(project, wanted, revision=entry.revision, deadline=deadline)
        except RevisionMovedError:
            deadline.check("revoking the preferred primary")


async def _delete(kv: Kv[V], key: str, is_theirs: Callable[[V], bool], *, deadline: Deadline) -> V | None:
    """Delete an entry if it `is_theirs` and return it; None if there is none or it belongs to another node."""
    while (entry := await kv.get(key, deadline=deadline)) is not None and is_theirs(entry.value):
        try:
            await kv.delete(key, revision=entry.revision, deadline=deadline)
        except RevisionMovedError:
            deadline.check(f"freeing {key}")
            continue
        return entry.value
    return None


def _is_primary(node: NodeId) -> Callable[[LeaderRecord], bool]:
    return lambda record: record.primary_node_id == node


def _is_owner(node: NodeId) -> Callable[[PushLeaseRecord], bool]:
    return lambda record: record.owner == node


def _any(presence: NodePresence) -> bool:
    del presence
    return True
