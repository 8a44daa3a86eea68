"""The bus from the settings: how to connect, and which streams and buckets must exist."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from membridge.aio import threads
from membridge.aio.backoff import jittered
from membridge.aio.deadline import Deadline
from membridge.aio.lifecycle import Ready
from membridge.aio.tasks import background
from membridge.bus.caller import own_name
from membridge.bus.connection import Bus, BusOptions, connect
from membridge.bus.kv import Kv, open_bucket
from membridge.bus.streams import ensure_streams
from membridge.errors import CredentialsError, MembridgeError
from membridge.settings import RUNTIME, Settings
from membridge.system.logging import get_logger
from membridge.wiring.service import Service
from schemas import buckets, streams
from schemas.buckets import Bucket, PushLeaseRecord
from schemas.identity import ProjectId
from schemas.node import NodePresence
from schemas.snapshot import Head
from schemas.streams import Stream
from schemas.wire import Wire

if TYPE_CHECKING:
    from membridge.objectstore.protocol import ObjectStore

log = get_logger("membridge.bus")

#: Seconds to create streams and buckets, and for a service to connect.
OPEN_DEADLINE, CONNECT = 30.0, 10.0


@dataclass(frozen=True, slots=True)
class Buckets:
    """The KV buckets that a node works with, opened."""

    heads: Kv[Head]
    push_leases: Kv[PushLeaseRecord]
    nodes: Kv[NodePresence]


def bus_options(settings: Settings, name: str, key: Path | None = None) -> BusOptions:
    """Return the settings' bus options; NATS shows the connection as `name`.

    `key` is this node's seed for a project's account, on a server with accounts.
    """
    nats = settings.nats
    return BusOptions(
        urls=nats.urls,
        name=name,
        credentials=None if key else nats.credentials_file,
        nkey_seed=key or nats.nkey_seed_file,
        ca_file=nats.ca_file,
        domain=nats.domain,
        replicas=nats.replicas,
        inbox_prefix=f"_INBOX.{settings.node.id}" if key else "_INBOX",
        caller=own_name(settings.node.id),
        enrolled=key is not None,
    )


def runtime_options(settings: Settings, name: str, *, user: str = RUNTIME) -> BusOptions:
    """Return the bus options for the task runtime; on a server with accounts, with this machine's key for it.

    `user` is the name of a service that connects with a key of its own.

    Raises CredentialsError when the key is missing.
    """
    keys = settings.nats.keys_dir
    if keys is None:
        return bus_options(settings, name)
    key = keys / f"{user}.seed"
    if not key.is_file():
        raise CredentialsError(
            f"this machine has no {user} key: {key} is missing",
            remedy="ask for an invitation (`membridge invite` on the server's machine) and run "
            "`membridge join LINE --replace`"
            if user == RUNTIME
            else f"run `membridge {user}` on the machine of `membridge up --listen`, which makes that key",
        )
    options = bus_options(settings, name, key)
    return options if user == RUNTIME else replace(options, inbox_prefix=f"_INBOX.{user}")


async def ensure(
    bus: Bus, wanted: Sequence[Stream], opened: Sequence[Bucket[Wire]], *, replicas: int, deadline: Deadline
) -> None:
    """Create missing streams and buckets, and update those whose declaration has changed."""
    await ensure_streams(bus, wanted, replicas=replicas, deadline=deadline)
    for bucket in opened:
        await open_bucket(bus, bucket, replicas=replicas, deadline=deadline)


async def ensure_all(bus: Bus, settings: Settings, *, deadline: Deadline) -> None:
    """Create the missing streams and buckets of nodes."""
    await ensure(bus, streams.ALL, buckets.ALL, replicas=settings.nats.replicas, deadline=deadline)


def project_key(keys: Path, service: str, project: ProjectId) -> Path:
    """Return the file of a service's key for a project's account, in the folder of this machine's keys."""
    return keys / service / f"{project}.seed"


@asynccontextmanager
async def project_buses(
    service: Service, settings: Settings, name: str, *, runtime: Bus, deadline: Deadline
) -> AsyncGenerator[dict[ProjectId | None, Bus]]:
    """Connect a service to each project's account, to ask its nodes.

    On a server without accounts all projects share `runtime`, which is under None.

    Errors: CredentialsError, BusUnavailableError.
    """
    keys = settings.nats.keys_dir
    if keys is None:
        await ensure(
            runtime,
            (streams.EVENTS, streams.JOBS),
            (buckets.NODES, buckets.SETTINGS, buckets.LEADERSHIP),
            replicas=settings.nats.replicas,
            deadline=deadline,
        )
        yield {None: runtime}
        return
    found = await threads.run(lambda: sorted((keys / service.name).glob("*.seed")))
    if not found:
        raise CredentialsError(
            f"this machine has no {service.name} key for any project: {keys / service.name} has none",
            remedy=f"run `membridge {service.name}` on the machine of `membridge up --listen`, which makes those keys",
        )
    async with AsyncExitStack() as stack:
        opened: dict[ProjectId | None, Bus] = {}
        for key in found:
            options = replace(bus_options(settings, name, key), inbox_prefix=f"_INBOX.{service.name}")
            opened[ProjectId(key.stem)] = await stack.enter_async_context(
                connect(options, deadline=deadline.sooner(CONNECT))
            )
        yield opened


@asynccontextmanager
async def service_bus(service: Service, settings: Settings, name: str, *, deadline: Deadline) -> AsyncGenerator[Bus]:
    """Connect as a service, and create its missing streams and buckets; NATS shows the connection as `name`.

    Errors: CredentialsError, BusUnavailableError.
    """
    options = runtime_options(settings, name, user=service.name)

    async def make(deadline: Deadline) -> None:
        await ensure(bus, service.all_streams, service.all_buckets, replicas=settings.nats.replicas, deadline=deadline)

    async with connect(options, deadline=deadline.sooner(CONNECT)) as bus:
        await make(deadline)
        async with background() as group:
            group.create_task(made_again(bus, make), name=f"streams of {service.name}")
            yield bus


async def keep_ensured(bus: Bus, store: "ObjectStore", settings: Settings, ready: Ready) -> None:
    """Create a node's streams, buckets and store again when a server comes back without them; runs until cancelled."""
    from membridge.objectstore.encryption.guard import backend  # noqa: PLC0415 - a service without a store needs neither
    from membridge.objectstore.jetstream import JetStreamStore  # noqa: PLC0415 - as above

    async def make(deadline: Deadline) -> None:
        await ensure_all(bus, settings, deadline=deadline)
        if isinstance(below := backend(store), JetStreamStore):
            await below.ensure(replicas=settings.nats.replicas, deadline=deadline)

    ready()
    await made_again(bus, make)


async def made_again(bus: Bus, make: Callable[[Deadline], Awaitable[None]]) -> NoReturn:
    """Call `make` after each reconnect until it succeeds: the server may have lost its store."""
    generation = bus.generation
    while True:
        generation = await bus.wait_generation(generation)
        try:
            await make(Deadline.after(OPEN_DEADLINE))
        except MembridgeError as error:
            log.warning("streams not ensured", reason=error.message)
            generation = min(generation, bus.generation - 1) if bus.connected else generation
            await asyncio.sleep(jittered(2.0))


async def open_buckets(bus: Bus, settings: Settings, *, deadline: Deadline) -> Buckets:
    """Create missing streams and buckets, and open those that a node uses."""
    await ensure_all(bus, settings, deadline=deadline)
    return Buckets(
        heads=Kv(bus, buckets.HEADS),
        push_leases=Kv(bus, buckets.PUSH_LEASES),
        nodes=Kv(bus, buckets.NODES),
    )
