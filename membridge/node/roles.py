"""The node's role for a project: by the elector's lease, as seen in KV, or with roles turned off."""

import asyncio
from typing import Protocol

from membridge.aio.deadline import Deadline
from membridge.errors import LeaseLostError
from membridge.leadership.elector import Elector
from membridge.leadership.view import LeadershipView
from schemas.identity import NodeId
from schemas.leadership import LeadershipReply, Policy, Role


class Roles(Protocol):
    """The node's role for a project. Answers at once, from memory."""

    @property
    def enabled(self) -> bool:
        """Whether there are roles at all."""
        ...

    def view(self) -> LeadershipView:
        """Return role, epoch and leader as this node knows them now."""
        ...

    def epoch_for_commit(self) -> int:
        """Return the epoch to commit under; raise LeaseLostError when this node is not primary now."""
        ...

    async def changed(self, since: LeadershipView) -> LeadershipView:
        """Return the view as soon as it differs from `since`."""
        ...

    async def give_way(self, node: NodeId, *, deadline: Deadline) -> None:
        """Let another node lead from now on. Errors: InvalidRequestError when it is not present, the bus'."""
        ...


class ByLease:
    """The role by the elector's lease."""

    enabled = True

    def __init__(self, elector: Elector) -> None:
        self._elector = elector

    def view(self) -> LeadershipView:
        """Return what the elector knows."""
        return self._elector.view()

    def epoch_for_commit(self) -> int:
        """Return the epoch of the elector's lease."""
        return self._elector.epoch_for_commit()

    async def changed(self, since: LeadershipView) -> LeadershipView:
        """Wait for the elector."""
        return await self._elector.changed(since)

    async def give_way(self, node: NodeId, *, deadline: Deadline) -> None:
        """Select the other one."""
        await self._elector.select(node, policy=None, issued_by=self._elector.node, deadline=deadline)


class AsSeen:
    """Leadership as read from the buckets once: for a process that is not a candidate."""

    enabled = True

    def __init__(self, seen: LeadershipReply) -> None:
        leader = seen.leader
        self._view = LeadershipView(
            role=Role.SECONDARY,
            epoch=leader.epoch if leader else 0,
            leader=leader.primary_node_id if leader else None,
            preferred=seen.preferred,
            policy=seen.policy,
            record=leader,
        )

    def view(self) -> LeadershipView:
        """Return what was read."""
        return self._view

    def epoch_for_commit(self) -> int:
        """Raise LeaseLostError: an observer never commits."""
        raise LeaseLostError("this process only observes: it never commits")

    async def changed(self, since: LeadershipView) -> LeadershipView:
        """Wait for ever: what was read does not change."""
        await asyncio.Event().wait()
        return since

    async def give_way(self, node: NodeId, *, deadline: Deadline) -> None:
        """Do nothing: there is no role to give."""


class NoRoles:
    """LEADERSHIP_ENABLED=0: every node commits; the head's compare-and-set and the merge keep it lossless."""

    enabled = False

    def view(self) -> LeadershipView:
        """Return a primary without an epoch of its own."""
        return LeadershipView(
            role=Role.PRIMARY, epoch=0, leader=None, preferred=None, policy=Policy.MANUAL, record=None
        )

    def epoch_for_commit(self) -> int:
        """Return zero: commits go under the head's epoch."""
        return 0

    async def changed(self, since: LeadershipView) -> LeadershipView:
        """Wait for ever: nothing changes."""
        await asyncio.Event().wait()
        return since

    async def give_way(self, node: NodeId, *, deadline: Deadline) -> None:
        """Do nothing: there is no role to give."""
