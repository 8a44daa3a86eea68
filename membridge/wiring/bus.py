"""The bus as the settings say: how to connect, and the streams and buckets that must be there."""

import asyncio
from dataclasses import dataclass, replace
from pathlib import Path

from membridge.aio.backoff import jittered
from membridge.aio.deadline import Deadline
from membridge.aio.lifecycle import Ready
from membridge.bus.caller import own_name
from membridge.bus.connection import Bus, BusOptions
from membridge.bus.kv import Kv, open_bucket
from membridge.bus.streams import ensure_streams
from membridge.errors import CredentialsError, MembridgeError
from membridge.objectstore.encryption.guard import backend
from membridge.objectstore.jetstream import JetStreamStore
from membridge.objectstore.protocol import ObjectStore
from membridge.settings import COORDINATOR, RUNTIME, Settings
from membridge.system.logging import get_logger
from schemas import buckets
from schemas.buckets import PushLeaseRecord
from schemas.node import NodePresence
from schemas.snapshot import Head

log = get_logger("membridge.node")

#: Seconds that streams and buckets may take to be created.
OPEN_DEADLINE = 30.0


@dataclass(frozen=True, slots=True)
class Buckets:
    """The KV buckets that a node works with, opened."""

    heads: Kv[Head]
    push_leases: Kv[PushLeaseRecord]
    nodes: Kv[NodePresence]


def bus_options(settings: Settings, name: str, key: Path | None = None) -> BusOptions:
    """Return how to connect, as the settings say; `name` is what NATS shows of this connection.

    `key` is this node's seed for a project's own account, where the server has such.
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
    """Return how to connect to the task runtime: where the server has accounts, with this machine's key for it.

    Raises CredentialsError when there is none.
    """
    keys = settings.nats.keys_dir
    if keys is None:
        return bus_options(settings, name)
    key = keys / f"{user}.seed"
    if not key.is_file():
        raise CredentialsError(
            f"this machine has no {user} key",
            remedy="run the coordinator on the machine of `membridge up --listen`"
            if user == COORDINATOR
            else "let it be invited, and `membridge join` again",
        )
    inbox = settings.node.id if user == RUNTIME else user
    return replace(bus_options(settings, name, key), inbox_prefix=f"_INBOX.{inbox}")


async def ensure_all(bus: Bus, settings: Settings, *, deadline: Deadline) -> None:
    """Create what is missing of streams and buckets."""
    replicas = settings.nats.replicas
    await ensure_streams(bus, replicas=replicas, deadline=deadline)
    for bucket in buckets.ALL:
        await open_bucket(bus, bucket, replicas=replicas, deadline=deadline)


async def keep_ensured(bus: Bus, store: ObjectStore, settings: Settings, ready: Ready) -> None:
    """Be the part that creates streams, buckets and store again when a server comes back without its memory."""
    generation = bus.generation
    ready()
    while True:
        generation = await bus.wait_generation(generation)
        try:
            await ensure_all(bus, settings, deadline=Deadline.after(OPEN_DEADLINE))
            if isinstance(below := backend(store), JetStreamStore):
                await below.ensure(replicas=settings.nats.replicas, deadline=Deadline.after(OPEN_DEADLINE))
        except MembridgeError as error:
            log.warning("streams not ensured", reason=error.message)
            generation = min(generation, bus.generation - 1) if bus.connected else generation
            await asyncio.sleep(jittered(2.0))


async def open_buckets(bus: Bus, settings: Settings, *, deadline: Deadline) -> Buckets:
    """Create what is missing of streams and buckets, and open those that a node uses."""
    replicas = settings.nats.replicas
    await ensure_all(bus, settings, deadline=deadline)
    return Buckets(
        heads=await open_bucket(bus, buckets.HEADS, replicas=replicas, deadline=deadline),
        push_leases=await open_bucket(bus, buckets.PUSH_LEASES, replicas=replicas, deadline=deadline),
        nodes=await open_bucket(bus, buckets.NODES, replicas=replicas, deadline=deadline),
    )
