"""Every machine: those that are present, and those that were.

A node's entry ends with it, so the gateway keeps what each said last. Of several gateways each writes the same.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from membridge.aio.deadline import Deadline
from membridge.aio.tasks import background
from membridge.errors import ConflictError, MembridgeError, NotFoundError
from membridge.system import clock
from membridge.system.logging import get_logger
from schemas.gateway import MachineName, MachinesReply
from schemas.identity import NodeId
from schemas.node import Empty, NodePresence
from services.gateway.projects import Projects
from services.web.mirror import Mirror
from services.web.routes import Call

log = get_logger("membridge.gateway")

#: Seconds that one write may take.
WRITE = 5.0
#: Seconds after which what a present machine says is written again.
NOTED = 600.0


class Machines:
    """The machines of all projects. `seen` is what each said last."""

    def __init__(self, projects: Projects, seen: Mirror[NodePresence]) -> None:
        self._projects, self._seen = projects, seen
        self._present: dict[NodeId, NodePresence] = {}

    async def listed(self, _: Empty, __: Call) -> MachinesReply:
        """List machines."""
        present = self._projects.nodes()
        names = {one.node for one in present}
        away = {name: entry.value for name, entry in self._seen.entries().items()}
        # One that left a moment ago is not written yet.
        away |= {name: one for name, one in self._present.items() if name not in away}
        return MachinesReply(nodes=present, away=[away[name] for name in sorted(away) if name not in names])

    async def forget(self, request: MachineName, call: Call) -> NodePresence:
        """Forget a machine that is away. Raises ConflictError for one that is present, NotFoundError."""
        if any(one.node == request.node for one in self._projects.nodes()):
            raise ConflictError(
                f"node {request.node} is present",
                remedy=f"stop it there, or take its keys away: `membridge nodes revoke {request.node}`",
            )
        kept = self._seen.entries().get(request.node)
        if kept is None:
            raise NotFoundError(f"there is no machine {request.node}", remedy="GET /api/nodes lists them")
        await self._seen.kv.delete(request.node, revision=kept.revision, deadline=call.deadline)
        self._present.pop(NodeId(request.node), None)
        await self._seen.refresh()
        return kept.value

    async def run(self) -> None:
        """Keep what machines say, when they come and when they leave, until cancelled."""
        changed = asyncio.Event()
        for account in self._projects.accounts:
            account.nodes.listen(changed.set)
        while True:
            changed.clear()
            try:
                await self._note()
            except MembridgeError as error:
                log.debug("machines not noted", reason=error.message)
            await changed.wait()

    async def _note(self) -> None:
        """Write what a machine says first, and what one said last that left. Errors: those of the bus."""
        present = {one.node: one for one in self._projects.nodes()}
        known = self._seen.entries()
        left = [one for name, one in self._present.items() if name not in present]
        # One that stays is written now and then: it may leave while no gateway runs.
        came = [one for name, one in present.items() if name not in known or _is_old(known[name].value, one)]
        self._present |= present
        for one in [*left, *came]:
            before = known.get(one.node)
            if before is None or before.value.updated_at < one.updated_at:
                await self._seen.kv.put(one.node, one, deadline=Deadline.after(WRITE))
        if left or came:
            await self._seen.refresh()
        self._present = present


def _is_old(kept: NodePresence, now: NodePresence) -> bool:
    return (clock.parse(now.updated_at) - clock.parse(kept.updated_at)).total_seconds() > NOTED


@asynccontextmanager
async def watched(projects: Projects, seen: Mirror[NodePresence]) -> AsyncGenerator[Machines]:
    """Keep what machines say during the body."""
    machines = Machines(projects, seen)
    async with background() as group:
        group.create_task(machines.run(), name="machines")
        yield machines
