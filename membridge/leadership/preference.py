"""A project's policy and preferred primary: stored without a TTL and changed only by compare-and-set.

The first node of a project writes it. Later operators do, and a node that takes over under the policy `auto`.
"""

from collections.abc import Callable
from contextlib import suppress

import msgspec

from membridge.aio.deadline import Deadline
from membridge.bus.kv import Kv
from membridge.errors import RevisionMovedError
from schemas.identity import NodeId, ProjectId
from schemas.leadership import Policy, ProjectSettings

Change = Callable[[ProjectSettings], ProjectSettings | None]


class Preference:
    """The settings entry of one project."""

    def __init__(self, settings: Kv[ProjectSettings], first: ProjectSettings) -> None:
        self.settings = settings
        #: The newest value that this node knows; it restores this one if the store loses it.
        self.known = first

    @property
    def project(self) -> ProjectId:
        """The project whose settings these are."""
        return self.known.project

    async def ensure(self, *, deadline: Deadline) -> None:
        """Read the entry, or create it if there is none."""
        with suppress(RevisionMovedError):  # another node was first
            await self.settings.create(self.project, self.known, deadline=deadline)
        entry = await self.settings.get(self.project, deadline=deadline)
        if entry is not None:
            self.known = entry.value

    async def select(self, node: NodeId, policy: Policy | None, issued_by: str, *, deadline: Deadline) -> None:
        """Set the preferred primary, and the policy unless None."""
        await self._change(
            lambda now: msgspec.structs.replace(
                now, preferred=node, policy=policy or now.policy, updated_by=issued_by or node
            ),
            deadline=deadline,
        )

    async def take_over(self, node: NodeId, instead_of: NodeId | None, *, deadline: Deadline) -> None:
        """Make `node` preferred if `instead_of` still is: a selection made meanwhile stays."""
        await self._change(
            lambda now: (
                msgspec.structs.replace(now, preferred=node, updated_by=node) if now.preferred == instead_of else None
            ),
            deadline=deadline,
        )

    async def _change(self, change: Change, *, deadline: Deadline) -> None:
        while True:
            entry = await self.settings.get(self.project, deadline=deadline)
            wanted = change(entry.value if entry else self.known)
            try:
                if wanted is None:
                    return
                if entry is None:
                    await self.settings.create(self.project, wanted, deadline=deadline)
                else:
                    await self.settings.update(self.project, wanted, revision=entry.revision, deadline=deadline)
            except RevisionMovedError:
                deadline.check("selecting a primary")
                continue
            self.known = wanted
            return
