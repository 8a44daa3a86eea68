"""The part of `membridge up --listen` that runs the enrolment service and looks after each project's account.

It connects as the server's own users, makes every account's streams and buckets, tells enrolled nodes where snapshots
are kept, and has nats-server reload after each change of the membership.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial

from membridge import __version__
from membridge.access.enrolment import Enrolment
from membridge.access.members import Membership
from membridge.access.offboarding import Offboarding
from membridge.access.provision import provision, provision_runtime, reclaim
from membridge.access.server_files import ServerFiles, own_member
from membridge.aio import threads
from membridge.aio.deadline import Deadline
from membridge.aio.lifecycle import Ready
from membridge.aio.tasks import background
from membridge.bus.connection import Bus, connect
from membridge.bus.service import Call, Endpoint, ServiceIdentity, serve
from membridge.errors import MembridgeError
from membridge.objectstore.jetstream import ARTIFACTS, BUCKET
from membridge.settings import RUNTIME
from membridge.system import clock
from membridge.system.logging import get_logger
from membridge.wiring.bus import made_again
from membridge.wiring.service import installed
from schemas import subjects
from schemas.access import StoreConfig
from schemas.identity import NodeId, ProjectId
from schemas.node import Empty

log = get_logger("membridge.access")

#: Seconds to connect as one of the server's own users, to make an account's streams, and to reload the server.
CONNECT, PROVISION, RELOAD = 5.0, 30.0, 10.0
#: Seconds between two searches for leftovers of deleted objects, and the most that one may take.
RECLAIM_EVERY, RECLAIM = 3600.0, 300.0

IDENTITY = ServiceIdentity(
    name="membridge-access",
    version=__version__,
    description="Invitations, enrolment and revocation.",
)


class EnrolmentPart:
    """Runs the enrolment service of one server, which `reload` has read its configuration again."""

    def __init__(
        self,
        server_files: ServerFiles,
        store: StoreConfig,
        *,
        reload: Callable[[Deadline], Awaitable[None]],
        replicas: int = 1,
    ) -> None:
        self._files, self._store, self._reload, self._replicas = server_files, store, reload, replicas
        self._host = NodeId("")

    def prepare(self, node: NodeId, names: list[str]) -> Membership:
        """Write the server's files before it starts; return the membership with this machine. Blocking."""
        self._host, now = node, clock.stamp()
        membership = own_member(self._files, self._files.membership(), node, names, now=now)
        self._files.write_config(membership)
        return membership

    async def run(self, membership: Membership, ready: Ready) -> None:
        """Serve until cancelled. The server already runs with the configuration of `membership`."""
        server_files = self._files
        accounts: dict[ProjectId, Bus] = {}
        offboarding = Offboarding(self._host, accounts)
        enrolment = Enrolment(
            server_files.folder, membership, await threads.run(server_files.enrolment_address), self._apply, offboarding
        )
        async with AsyncExitStack() as stack, background() as group:
            operators = await self._enter(stack, "desk", jetstream=False)
            joining = await self._enter(stack, "doorkeeper", jetstream=False)
            for project in membership.projects:
                bus = accounts[project] = await self._enter(stack, f"operator-{project}")
                await self._tended(group, bus, project, BUCKET, partial(self._provision, bus, project))
                await stack.enter_async_context(serve(bus, IDENTITY, [self._store_endpoint(project)]))
            runtime = await self._enter(stack, f"operator-{RUNTIME}")
            await self._tended(group, runtime, RUNTIME, ARTIFACTS, partial(self._provision_runtime, runtime))
            await enrolment.start()
            await stack.enter_async_context(serve(operators, IDENTITY, enrolment.operator_endpoints()))
            await stack.enter_async_context(serve(runtime, IDENTITY, enrolment.inviting_endpoints()))
            await stack.enter_async_context(serve(joining, IDENTITY, enrolment.enrolment_endpoints()))
            ready()
            await asyncio.Event().wait()

    async def _provision(self, bus: Bus, project: ProjectId, deadline: Deadline) -> None:
        await provision(bus, project, replicas=self._replicas, deadline=deadline)

    async def _provision_runtime(self, bus: Bus, deadline: Deadline) -> None:
        services = await threads.run(installed)
        await provision_runtime(bus, services, replicas=self._replicas, deadline=deadline)

    async def _tended(
        self, group: asyncio.TaskGroup, bus: Bus, account: str, bucket: str, make: Callable[[Deadline], Awaitable[None]]
    ) -> None:
        """Make an account's streams and buckets, now and whenever the server lost them; free what nodes deleted."""
        await make(Deadline.after(PROVISION))
        group.create_task(made_again(bus, make), name=f"streams of {account}")
        group.create_task(self._tend(bus, account, bucket, make), name=f"tend {account}")

    async def _tend(self, bus: Bus, account: str, bucket: str, make: Callable[[Deadline], Awaitable[None]]) -> None:
        seen = dict[str, int]()
        while True:
            # An upload without an object must have had time to end.
            await asyncio.sleep(RECLAIM_EVERY)
            try:
                await make(Deadline.after(PROVISION))
                seen = await reclaim(bus, bucket, seen, deadline=Deadline.after(RECLAIM))
            except MembridgeError as error:
                log.warning("account not tended", name=account, reason=error.message)

    async def _enter(self, stack: AsyncExitStack, role: str, *, jetstream: bool = True) -> Bus:
        inbox = role if not jetstream else ""
        options = self._files.options(self._files.seed(role), f"membridge-{role}", inbox=inbox, jetstream=jetstream)
        return await stack.enter_async_context(connect(options, deadline=Deadline.after(CONNECT)))

    async def _apply(self, membership: Membership) -> None:
        await threads.run(self._files.write_config, membership)
        await self._reload(Deadline.after(RELOAD))

    def _store_endpoint(self, project: ProjectId) -> Endpoint:
        async def answer(request: Empty, call: Call) -> StoreConfig:
            del request, call
            return self._store

        return Endpoint(
            operation=subjects.STORE_CONFIG, subject=subjects.STORE_CONFIG.at(project=project), handler=answer
        )
