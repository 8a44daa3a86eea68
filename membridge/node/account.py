"""One connection of this node and the projects it serves over it: all of them, or those of one NATS account.

Where the server has an account for each project, one that cannot be opened is reported and tried again, and the others
serve meanwhile.
"""

import asyncio
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

from membridge.aio import lifecycle, threads
from membridge.aio.backoff import kept_running
from membridge.aio.deadline import Deadline
from membridge.aio.lifecycle import Part, Ready
from membridge.bus.connection import Bus, connect
from membridge.errors import AlreadyRunningError, CredentialsError, MembridgeError, RevokedError
from membridge.node.duplicate_node import check_alone, instance_of
from membridge.node.projects_part import ProjectsPart
from membridge.objectstore.encryption.guard import backend
from membridge.objectstore.jetstream import JetStreamStore
from membridge.objectstore.reclaiming import keep_reclaiming
from membridge.settings import ProjectConfig, Settings
from membridge.system.logging import get_logger
from membridge.wiring.bus import OPEN_DEADLINE, bus_options, keep_ensured, open_buckets
from membridge.wiring.store import open_store

log = get_logger("membridge.node")

#: Seconds the first connection to NATS may take before the daemon says why it failed.
CONNECT_DEADLINE = 5.0
#: Seconds a part of an account that was opened later may take to stop.
DRAIN = 10.0


class Account:
    """The projects of one key. `hosts` is the node's list of what serves projects; an opened account adds its own."""

    def __init__(
        self, settings: Settings, key: Path | None, projects: list[ProjectConfig], hosts: list[ProjectsPart]
    ) -> None:
        self._settings, self._key, self._projects, self._hosts = settings, key, projects, hosts
        self._reported, self._served = "", False
        self.name = f" of {key.stem}" if key else ""

    async def open(self, stack: AsyncExitStack) -> dict[str, Part]:
        """Open the connection and its resources until `stack` closes; return the parts that serve the projects."""
        settings, key = self._settings, self._key
        if key is not None and not await threads.run(key.is_file):
            raise CredentialsError(
                f"this machine's key {key} is missing",
                remedy="ask for an invitation (`membridge invite` on the server's machine) and run "
                "`membridge join LINE --replace`",
            )
        async with AsyncExitStack() as own:
            options = bus_options(settings, f"membridge-node-{settings.node.id}", key)
            bus = await own.enter_async_context(connect(options, deadline=Deadline.after(CONNECT_DEADLINE)))
            opened = await open_buckets(bus, settings, deadline=Deadline.after(OPEN_DEADLINE))
            instance = await threads.run(instance_of, settings.node.state_dir)
            await check_alone(opened.nodes, settings.node.id, instance)
            store = await own.enter_async_context(open_store(bus, settings))
            await stack.enter_async_context(own.pop_all())
        projects = ProjectsPart(bus, store, opened, settings, projects=self._projects, grows=key is None)
        parts: dict[str, Part] = {
            f"streams{self.name}": partial(keep_ensured, bus, store, settings),
            f"projects{self.name}": projects.run,
        }
        if key is None and isinstance(below := backend(store), JetStreamStore):
            parts["loose chunks"] = partial(keep_reclaiming, below, projects.leads)
        if options.enrolled:
            parts[f"credentials{self.name}"] = partial(_until_revoked, bus, projects)
        if self._hosts:
            projects.presence.worker = self._hosts[0].presence.worker
        self._hosts.append(projects)
        return {**parts, f"presence{self.name}": projects.presence.run}

    def failed(self, failure: Exception) -> None:
        """Report why the account's projects are not served, once for each reason."""
        if str(failure) == self._reported:
            return
        self._reported = str(failure)
        told = failure if isinstance(failure, MembridgeError) else None
        for project in self._projects:
            log.error(
                "project not served",
                project=project.name,
                reason=told.message if told else repr(failure),
                remedy=told.remedy if told else "",
                exc_info=None if told else failure,
            )

    async def reopen(self, ready: Ready) -> None:
        """Run the part that retries to open the account, then serves its projects.

        Raises AlreadyRunningError when another machine turns out to have this node's name, and RevokedError when this
        machine is revoked while the account is served.
        """
        ready()

        def failed(failure: Exception, _pause: float) -> None:
            if isinstance(failure, AlreadyRunningError) or (isinstance(failure, RevokedError) and self._served):
                raise failure
            self.failed(failure)

        await kept_running(self._serve, name=f"account{self.name}", on_failure=failed)

    async def _serve(self) -> None:
        async with AsyncExitStack() as stack:
            parts = await self.open(stack)
            host, self._served = self._hosts[-1], True
            try:
                await lifecycle.run(parts, stopping=asyncio.Event(), on_ready=_unheard, drain=DRAIN)
            finally:
                self._hosts.remove(host)


async def _until_revoked(bus: Bus, projects: ProjectsPart, ready: Ready) -> None:
    """Run the part that ends the node when NATS no longer accepts its key. Raises RevokedError."""
    ready()
    await bus.until_refused()
    raise projects.revocation()


def _unheard() -> None:
    """Nothing waits for this account to be ready."""
