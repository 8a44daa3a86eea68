"""The node's role for a project, however it comes about: by a keeper's lease, or with roles turned off."""

import asyncio
from typing import Protocol

from membridge.leadership.keeper import LeadershipView
from schemas.leadership import Policy, Role


class Roles(Protocol):
    """What the lane asks about leadership. Answers at once, from memory."""

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
