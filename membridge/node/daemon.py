"""The node daemon's root: settings in, resources nested, parts run, failures mapped. Everything is composed here."""

import asyncio
import signal
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import cast

from membridge import blocking, lifecycle
from membridge.bus.connection import connect
from membridge.deadline import Deadline
from membridge.errors import MembridgeError
from membridge.lifecycle import Part
from membridge.logging import get_logger
from membridge.node import registry
from membridge.node.hosting import Hosting
from membridge.node.instance import check_alone, instance_of
from membridge.node.notify import Notifier
from membridge.node.opening import OPEN_DEADLINE, bus_options, keep_ensured, open_buckets, open_store, runtime_options
from membridge.node.presence import Presence
from membridge.node.running import only_one
from membridge.objectstore.jetstream import JetStreamStore
from membridge.objectstore.reclaiming import keep_reclaiming
from membridge.objectstore.unsealed import backend
from membridge.settings import ProjectConfig, Settings

log = get_logger("membridge.node")

#: Seconds the first connection to NATS may take before the daemon says why it failed.
CONNECT_DEADLINE = 5.0
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
                for key, projects in _by_key(await blocking.run(registry.load, settings)).items():
                    hosting, opened = await _open(stack, settings, key, projects)
                    presences.append(hosting.presence)
                    parts |= opened
                if settings.executor.enabled:
                    parts |= await _open_worker(stack, settings, presences)
                late = await lifecycle.run(
                    parts, stopping=stopping, on_ready=ready, on_stopping=notifier.stopping, drain=DRAIN
                )
                if late:
                    log.error("parts did not stop in time", late=late)
    except BaseExceptionGroup as failures:
        raise _first(failures) from failures


async def _open(
    stack: AsyncExitStack, settings: Settings, key: Path | None, projects: list[ProjectConfig]
) -> tuple[Hosting, dict[str, Part]]:
    """Open one connection and what hangs on it; return its projects and the parts that serve them."""
    options = bus_options(settings, f"membridge-node-{settings.node.id}", key)
    bus = await stack.enter_async_context(connect(options, deadline=Deadline.after(CONNECT_DEADLINE)))
    opened = await open_buckets(bus, settings, deadline=Deadline.after(OPEN_DEADLINE))
    instance = await blocking.run(instance_of, settings.node.state_dir)
    await check_alone(opened.nodes, settings.node.id, instance)
    store = await stack.enter_async_context(open_store(bus, settings))
    hosting = Hosting(bus, store, opened, settings, projects=projects, grows=key is None)
    account = f" of {key.stem}" if key else ""
    parts: dict[str, Part] = {
        f"streams{account}": partial(keep_ensured, bus, store, settings),
        f"projects{account}": hosting.run,
    }
    if key is None and isinstance(below := backend(store), JetStreamStore):
        parts["loose chunks"] = partial(keep_reclaiming, below, hosting.leads)
    return hosting, {**parts, f"presence{account}": hosting.presence.run}


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

    def stop(number: signal.Signals) -> None:
        if number is not signal.SIGHUP:
            loop.remove_signal_handler(number)
        stopping.set()

    for number in numbers:
        loop.add_signal_handler(number, stop, number)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


def _first(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the failure that says most: the first of ours, else the first at all."""
    leaves = list(_leaves(failures))
    return next((leaf for leaf in leaves if isinstance(leaf, MembridgeError)), leaves[0])


def _leaves(failures: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for failure in failures.exceptions:
        if isinstance(failure, BaseExceptionGroup):
            yield from _leaves(cast("BaseExceptionGroup[BaseException]", failure))
        else:
            yield failure
