"""The node daemon's root: settings in, resources nested, parts run, failures mapped. Everything is composed here."""

import asyncio
import os
import signal
from collections.abc import Callable, Generator, Mapping
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path

from membridge import blocking, lifecycle
from membridge.bus.connection import connect
from membridge.deadline import Deadline
from membridge.errors import AlreadyRunningError, MembridgeError
from membridge.lifecycle import Part
from membridge.logging import get_logger
from membridge.node import registry
from membridge.node.account import CONNECT_DEADLINE, Account
from membridge.node.notify import Notifier
from membridge.node.opening import runtime_options
from membridge.node.presence import Presence
from membridge.node.running import only_one
from membridge.settings import ProjectConfig, Settings

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
                presences: list[Presence] = []
                parts |= await _open_accounts(stack, settings, presences)
                if settings.executor.enabled:
                    parts |= await _open_worker(stack, settings, presences)
                late = await lifecycle.run(
                    parts, stopping=stopping, on_ready=ready, on_stopping=notifier.stopping, drain=DRAIN
                )
                if late:
                    log.error("parts did not stop in time", late=late)
    except ExceptionGroup as failures:
        raise lifecycle.cause_of(failures) from failures


async def _open_accounts(stack: AsyncExitStack, settings: Settings, presences: list[Presence]) -> dict[str, Part]:
    """Open every account of this node; return the parts that serve them.

    Accounts that cannot be opened are tried again by a part of their own, unless all fail: then the first reason is
    raised.
    """
    parts: dict[str, Part] = {}
    failures: list[MembridgeError] = []
    for key, projects in _by_key(await blocking.run(registry.load, settings)).items():
        account = Account(settings, key, projects, presences)
        try:
            parts |= await account.open(stack)
        except AlreadyRunningError:
            raise
        except MembridgeError as error:
            account.failed(error)
            failures.append(error)
            parts[f"account{account.name}"] = account.reopen
    if not presences:
        raise failures[0]
    return parts


async def _open_worker(stack: AsyncExitStack, settings: Settings, presences: list[Presence]) -> dict[str, Part]:
    """Open the worker's connection; return its parts."""
    from membridge.node.working import make_worker  # noqa: PLC0415 - loaded only where tasks are taken

    options = runtime_options(settings, f"membridge-worker-{settings.node.id}")
    bus = await stack.enter_async_context(connect(options, deadline=Deadline.after(CONNECT_DEADLINE)))
    return await make_worker(bus, settings, presences)


def _by_key(projects: list[ProjectConfig]) -> dict[Path | None, list[ProjectConfig]]:
    """Return the projects by the key they are reached with: one connection for all, or one for each."""
    found: dict[Path | None, list[ProjectConfig]] = {}
    for project in projects:
        found.setdefault(project.nkey_seed_file, []).append(project)
    return found


@contextmanager
def signals_set(stopping: asyncio.Event) -> Generator[None]:
    """Let SIGTERM, SIGINT and SIGHUP set `stopping` during the body; a second SIGTERM or SIGINT ends the process.

    A closed terminal sends SIGHUP, often twice: by the kernel and by the shell. Under `nohup` it stays ignored.
    """
    loop = asyncio.get_running_loop()
    numbers = [signal.SIGTERM, signal.SIGINT]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    terminals = [number for number in (1, 2) if os.isatty(number)]

    def stop(number: signal.Signals) -> None:
        if number is signal.SIGHUP:
            _leave(terminals)
        else:
            loop.remove_signal_handler(number)
        stopping.set()

    for number in numbers:
        loop.add_signal_handler(number, stop, number)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


def _leave(terminals: list[int]) -> None:
    """Let what is still written go nowhere: a write to a closed terminal fails, at the latest when Python ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for number in terminals:
        os.dup2(nowhere, number)
    os.close(nowhere)
