"""Presence: this node's entry in the `nodes` bucket, written every ten seconds and at each change.

The entry expires with the node by its TTL. A clean stop deletes it.
"""

import asyncio
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from membridge import __version__
from membridge.aio.deadline import Deadline, comes_within
from membridge.aio.lifecycle import Ready
from membridge.bus.kv import Kv
from membridge.errors import AlreadyRunningError, MembridgeError, RevisionMovedError
from membridge.node.addresses import own_addresses
from membridge.node.duplicate_node import another
from membridge.node.install_method import install_method
from membridge.system import clock
from membridge.system.logging import get_logger
from schemas.identity import NodeId
from schemas.leadership import LeaderRecord, Role
from schemas.node import NodePresence, NodesReply, ProjectPresence

if TYPE_CHECKING:
    from schemas.workers import WorkerPresence

log = get_logger("membridge.presence")

#: Seconds between two entries; the bucket's TTL is three of them.
EVERY = 10.0


class Present(Protocol):
    """A project in the entry, served or not."""

    async def presence(self) -> ProjectPresence:
        """Return the project as this node sees it; a problem of the project never raises."""
        ...


class Presence:
    """Writes this node's entry."""

    def __init__(
        self, nodes: Kv[NodePresence], node: NodeId, instance: str, projects: Callable[[], Iterable[Present]]
    ) -> None:
        self._nodes, self._node, self._instance, self._projects = nodes, node, instance, projects
        self._revision = 0
        self._started = clock.stamp()
        self._changed = asyncio.Event()
        self._installed = install_method(Path(sys.prefix), Path(__file__).parents[1])
        #: The presence of this node's LLM worker, if it has one.
        self.worker: Callable[[], WorkerPresence] | None = None

    def touch(self) -> None:
        """Write the entry again soon, because something changed."""
        self._changed.set()

    async def run(self, ready: Ready) -> None:
        """Keep the entry fresh until cancelled, then withdraw it.

        Raises AlreadyRunningError when another machine turns out to have this node's name.
        """
        try:
            await self._say()
            ready()
            while True:
                await comes_within(self._changed, EVERY)
                self._changed.clear()
                await self._say()
        finally:
            await self._withdraw()

    async def describe(self) -> NodePresence:
        """Return the entry as it would be written now."""
        machine = os.uname()
        return NodePresence(
            node=self._node,
            version=__version__,
            python=".".join(map(str, sys.version_info[:3])),
            os=f"{machine.sysname} {machine.release}",
            arch=machine.machine,
            addresses=own_addresses(),
            pid=os.getpid(),
            instance=self._instance,
            started_at=self._started,
            updated_at=clock.stamp(),
            install_method=self._installed,
            projects=[await project.presence() for project in self._projects()],
            worker=self.worker() if self.worker is not None else None,
        )

    async def _say(self) -> None:
        try:
            said = await self.describe()
            self._revision = await self._write(said, Deadline.after(EVERY / 2))
        except AlreadyRunningError:
            raise
        except MembridgeError as error:
            log.warning("presence not written", reason=error.message)

    async def _write(self, said: NodePresence, deadline: Deadline) -> int:
        """Write the entry: over our own last one, over none, or over one of an earlier process of this node."""
        if self._revision:
            try:
                return await self._nodes.update(self._node, said, revision=self._revision, deadline=deadline)
            except RevisionMovedError:
                pass  # expired, wiped, or not ours any more
        there = await self._nodes.get(self._node, deadline=deadline)
        if there is None:
            return await self._nodes.create(self._node, said, deadline=deadline)
        # Once ours was in place, an entry of another instance is another machine's.
        if self._revision and there.value.instance not in {"", self._instance}:
            raise another(there.value)
        return await self._nodes.update(self._node, said, revision=there.revision, deadline=deadline)

    async def _withdraw(self) -> None:
        try:
            # Read again: a stop may come between a write and its answer.
            there = await self._nodes.get(self._node, deadline=Deadline.after(1.0))
            if there is not None and there.value.instance == self._instance:
                await self._nodes.delete(self._node, revision=there.revision, deadline=Deadline.after(1.0))
        except MembridgeError as error:
            log.info("presence not withdrawn", reason=error.message)


async def present(nodes: Kv[NodePresence], leases: Kv[LeaderRecord], *, deadline: Deadline) -> NodesReply:
    """Return the nodes whose entry is there now, and which of their projects have no primary."""
    entries = await nodes.entries(deadline=deadline)
    found = sorted((entry.value for entry in entries.values()), key=lambda presence: presence.node)
    projects = {project.project: project for node in found for project in node.projects}
    led = {project.project for node in found for project in node.projects if project.role is Role.PRIMARY}
    leaderless = [
        project.name
        for project in projects.values()
        if project.project not in led and await leases.get(project.project, deadline=deadline) is None
    ]
    return NodesReply(nodes=found, leaderless=sorted(leaderless))
