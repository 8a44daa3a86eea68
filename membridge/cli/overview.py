"""What `membridge up` prints: the parts that it runs, and whether they work.

It is up once its object store answers too. Until then it prints what is wrong, once for each reason.
"""

import asyncio
import shutil
import sys
from collections.abc import Iterable
from contextlib import suppress

from membridge.aio import threads
from membridge.aio.backoff import Backoff
from membridge.aio.deadline import Deadline
from membridge.aio.lifecycle import Ready
from membridge.errors import DeadlineExceededError, MembridgeError
from membridge.node import registry
from membridge.objectstore.protocol import ObjectStore
from membridge.settings import Settings, StoreKind
from membridge.wiring.service import Service
from membridge.wiring.store import open_store

#: Seconds that the store may take to answer, and the shortest and longest pause between two tries.
ANSWER, FIRST_PAUSE, MOST_PAUSE = 5.0, 0.5, 15.0
#: An object that no store has: asking for it shows that the store answers and accepts our keys.
_ABSENT = "membridge-up"
_HINT = "Ctrl-C stops it; `membridge status` in another terminal shows it."


async def announce(settings: Settings, services: Iterable[Service], ready: Ready) -> None:
    """Print the overview when everything else serves, and a line when the store answers; a part that runs on."""
    ready()
    rows = await threads.run(overview, settings, services)
    if settings.store.backend is StoreKind.JETSTREAM:
        # Its store is in nats-server, and the node has opened it.
        _print(f"Membridge is up. {_HINT}\n{rows}")
    else:
        _print(f"Membridge runs:\n{rows}")
        async with open_store(None, settings) as store:
            await _until_it_answers(store, f"{settings.store.endpoint} does not answer")
        _print(f"Membridge is up. {_HINT}")
    await asyncio.Event().wait()


def _print(text: str) -> None:
    # A closed terminal takes no output; no part fails for that.
    with suppress(OSError):
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()


async def _until_it_answers(store: ObjectStore, silent: str) -> None:
    said, backoff = "", Backoff(FIRST_PAUSE, MOST_PAUSE)
    while (failure := await _failure_of(store)) is not None:
        told = silent if isinstance(failure, DeadlineExceededError) else failure.message
        if failure.remedy:
            told += f". {failure.remedy}"
        if told != said:
            _print(f"Not up yet, nothing is synchronised: {told}")
        said = told
        await asyncio.sleep(backoff.failed())


async def _failure_of(store: ObjectStore) -> MembridgeError | None:
    try:
        await store.head(_ABSENT, deadline=Deadline.after(ANSWER))
    except MembridgeError as error:
        return error
    return None


def overview(settings: Settings, services: Iterable[Service]) -> str:
    """Return a line for each part that runs, and for where everything is. Blocking."""
    store, nats = settings.store, settings.nats
    kept = "JetStream Object Store" if store.backend is StoreKind.JETSTREAM else f"{store.endpoint} {store.bucket}"
    rows = [
        ("nats-server", nats.urls[0]),
        *([("others", f"{nats.listen}: `membridge invite` lets one more machine join")] if nats.listen else []),
        *((service.name, service.described(settings)) for service in services),
        ("node", str(settings.node.id)),
        *((f"project {project.name}", str(project.database)) for project in registry.load(settings)),
        *([("worker", _worker(settings))] if settings.worker.enabled else []),
        ("snapshots", f"{kept}{', encrypted' if store.encrypted else ''}"),
        ("state", str(settings.node.state_dir)),
    ]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"  {name:<{width}}  {value}" for name, value in rows)


def _worker(settings: Settings) -> str:
    wanted = settings.worker
    found = shutil.which(wanted.claude)
    if found is None:
        return f"takes no tasks: {wanted.claude} is not installed. Install Claude Code, or set MEMBRIDGE_CLAUDE"
    return f"{wanted.max_concurrency} tasks at once, with {found}"
