"""The node daemon's root: settings in, resources nested, parts run, failures mapped. Everything is composed here."""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path

from membridge.aio import lifecycle, tasks, threads
from membridge.aio.deadline import Deadline
from membridge.aio.lifecycle import Part
from membridge.bus.connection import connect
from membridge.errors import AlreadyRunningError, MembridgeError
from membridge.node import registry
from membridge.node.account import CONNECT_DEADLINE, Account
from membridge.node.hooks_part import hooks_part
from membridge.node.projects_part import ProjectsPart
from membridge.settings import ProjectConfig, Settings
from membridge.system.logging import get_logger
from membridge.system.pidfile import only_one
from membridge.system.sd_notify import Notifier
from membridge.wiring.bus import runtime_options

log = get_logger("membridge.node")

#: Seconds a part may take to stop: a push is finished or safely abandoned by then.
DRAIN = 10.0


async def run(
    settings: Settings,
    environ: Mapping[str, str],
    *,
    stopping: asyncio.Event,
    on_ready: Callable[[], None] = lambda: None,
) -> None:
    """Run the node until `stopping` is set; tell the service manager that `environ` names how it is.

    Raises the MembridgeError that keeps it from starting or running: AlreadyRunningError, BusUnavailableError,
    CredentialsError, SettingsError, …
    """
    notifier = Notifier.of(environ)

    def ready() -> None:
        notifier.ready()
        log.info("node ready", node=settings.node.id, detail=settings.store.backend)
        on_ready()

    try:
        with only_one(settings.node.state_dir, "node"):
            async with AsyncExitStack() as stack:
                # They stop in reverse: the worker hands its tasks back while all of the node still works.
                parts: dict[str, Part] = {"watchdog": notifier.alive}
                hosts: list[ProjectsPart] = []
                parts |= await _open_accounts(stack, settings, hosts)
                parts["hooks"] = hooks_part(settings, environ, hosts)
                if settings.worker.enabled:
                    parts |= await _open_worker(stack, settings, hosts)
                late = await lifecycle.run(
                    parts, stopping=stopping, on_ready=ready, on_stopping=notifier.stopping, drain=DRAIN
                )
                if late:
                    log.error("parts did not stop in time", late=late)
    except ExceptionGroup as failures:
        raise tasks.cause_of(failures) from failures


async def _open_accounts(stack: AsyncExitStack, settings: Settings, hosts: list[ProjectsPart]) -> dict[str, Part]:
    """Open every account of this node; return the parts that serve them.

    Accounts that cannot be opened are tried again by a part of their own, unless all fail: then the first reason is
    raised.
    """
    parts: dict[str, Part] = {}
    failures: list[MembridgeError] = []
    for key, projects in _by_key(await threads.run(registry.load, settings)).items():
        account = Account(settings, key, projects, hosts)
        try:
            parts |= await account.open(stack)
        except AlreadyRunningError:
            raise
        except MembridgeError as error:
            account.failed(error)
            failures.append(error)
            parts[f"account{account.name}"] = account.reopen
    if not hosts:
        raise failures[0]
    return parts


async def _open_worker(stack: AsyncExitStack, settings: Settings, hosts: list[ProjectsPart]) -> dict[str, Part]:
    """Open the worker's connection; return its parts."""
    from membridge.node.worker_part import make_worker  # noqa: PLC0415 - loaded only where tasks are taken

    options = runtime_options(settings, f"membridge-worker-{settings.node.id}")
    bus = await stack.enter_async_context(connect(options, deadline=Deadline.after(CONNECT_DEADLINE)))
    return await make_worker(bus, settings, hosts)


def _by_key(projects: list[ProjectConfig]) -> dict[Path | None, list[ProjectConfig]]:
    """Return the projects by the key they are reached with: one connection for all, or one for each."""
    found: dict[Path | None, list[ProjectConfig]] = {}
    for project in projects:
        found.setdefault(project.nkey_seed_file, []).append(project)
    return found
