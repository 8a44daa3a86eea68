"""Open what a node works with: the bus' buckets, the object store, a project's lane. Composition only, no decisions."""

import asyncio
import random
import secrets
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from membridge import blocking
from membridge.bus.asker import speaker
from membridge.bus.connection import Bus, BusOptions
from membridge.bus.kv import Kv, open_bucket
from membridge.bus.streams import ensure_streams
from membridge.deadline import Deadline
from membridge.errors import BusUnavailableError, CredentialsError, MembridgeError, SettingsError
from membridge.lifecycle import Ready
from membridge.logging import get_logger
from membridge.merge.conflicts import Journal
from membridge.node.project import Bounds, Project
from membridge.node.roles import Roles
from membridge.objectstore.jetstream import JetStreamStore, open_jetstream
from membridge.objectstore.keys import KeySource
from membridge.objectstore.protocol import ObjectStore
from membridge.objectstore.remote import S3Options, open_s3
from membridge.objectstore.unsealed import UnsealedStore, backend
from membridge.settings import COORDINATOR, RUNTIME, ProjectConfig, Settings, StoreKind
from membridge.snapshot.chain import ChainPolicy
from membridge.snapshot.lane import Lane, LanePolicy
from membridge.snapshot.lock import LockTerms
from membridge.snapshot.retention import BackupPolicy, SnapshotPolicy
from schemas import buckets, subjects
from schemas.buckets import LockRecord
from schemas.events import Event, encode_event
from schemas.node import NodePresence
from schemas.snapshot import Head

log = get_logger("membridge.node")

#: Seconds that streams and buckets may take to be created.
OPEN_DEADLINE = 30.0
#: Seconds that telling a fact may take: nobody may depend on it.
EVENT_DEADLINE = 2.0


@dataclass(frozen=True, slots=True)
class Buckets:
    """The KV buckets that a node works with, opened."""

    heads: Kv[Head]
    locks: Kv[LockRecord]
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
        speaker=speaker(settings.node.id),
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
            await asyncio.sleep(1.0 + random.random())  # noqa: S311 - jitter


async def open_buckets(bus: Bus, settings: Settings, *, deadline: Deadline) -> Buckets:
    """Create what is missing of streams and buckets, and open those that a node uses."""
    replicas = settings.nats.replicas
    await ensure_all(bus, settings, deadline=deadline)
    return Buckets(
        heads=await open_bucket(bus, buckets.HEADS, replicas=replicas, deadline=deadline),
        locks=await open_bucket(bus, buckets.LOCKS, replicas=replicas, deadline=deadline),
        nodes=await open_bucket(bus, buckets.NODES, replicas=replicas, deadline=deadline),
    )


@asynccontextmanager
async def open_store(bus: Bus | None, settings: Settings) -> AsyncGenerator[ObjectStore]:
    """Open the object store that the settings name, sealed where they say so.

    Without a bus only an S3 can be opened. Errors: BusUnavailableError, SettingsError, and those of the store.
    """
    async with open_backend(bus, settings) as opened:
        if not settings.store.encrypted:
            yield UnsealedStore(opened)
            return
        from membridge.objectstore.sealed import SealedStore  # noqa: PLC0415 - it loads the cipher

        yield SealedStore(opened, key_source(settings))


def key_source(settings: Settings) -> KeySource:
    """Return where the settings say that this node's keys are."""
    passphrase = settings.store.encryption_passphrase
    return KeySource(
        file=settings.store.encryption_key_file, passphrase=passphrase.reveal() if passphrase is not None else None
    )


@asynccontextmanager
async def open_backend(bus: Bus | None, settings: Settings) -> AsyncGenerator[ObjectStore]:
    """Open the object store that the settings name as it is: what goes in is not sealed."""
    store = settings.store
    if store.backend is StoreKind.JETSTREAM:
        if bus is None:
            raise BusUnavailableError("snapshots are kept in NATS, which was not reached")
        # Who has a key of its own for an account may not purge; the account's operator does.
        purges = settings.nats.keys_dir is None
        async with open_jetstream(
            lambda: bus.raw, replicas=settings.nats.replicas, purges=purges, api=bus.options.api
        ) as opened:
            yield opened
        return
    if store.endpoint is None or store.access_key is None or store.secret_key is None:
        raise SettingsError(
            "the S3 store needs MINIO_ENDPOINT, MINIO_ACCESS_KEY and MINIO_SECRET_KEY",
            remedy="set them, or MEMBRIDGE_STORE=jetstream to keep snapshots in NATS",
            field="store",
        )
    options = S3Options(
        endpoint=store.endpoint,
        access_key=store.access_key.reveal(),
        secret_key=store.secret_key.reveal(),
        bucket=store.bucket,
        region=store.region,
        ca_file=store.ca_file,
    )
    async with open_s3(options) as opened:
        yield opened


def lane_folder(settings: Settings, config: ProjectConfig) -> Path:
    """Return the state folder of one project."""
    return settings.node.state_dir / "projects" / config.id


@asynccontextmanager
async def open_lane(
    bus: Bus, store: ObjectStore, opened: Buckets, settings: Settings, config: ProjectConfig
) -> AsyncGenerator[Lane]:
    """Open a project's lane: its folder, journal and the announcer of its facts."""
    folder = lane_folder(settings, config)
    journal = await blocking.run(Journal, folder / "journal.db")
    lane_settings, keep, keep_backups = settings.lane, settings.keep, settings.backup
    try:
        yield Lane(
            project=config.id,
            name=config.name,
            node=settings.node.id,
            database=config.database,
            folder=folder,
            store=store,
            heads=opened.heads,
            journal=journal,
            announce=lambda event: announce(bus, event),
            policy=LanePolicy(
                shrink_percent=lane_settings.shrink_percent,
                publish_legacy=settings.store.publish_legacy,
                chain=ChainPolicy(lane_settings.chain_max_deltas, lane_settings.chain_max_percent),
                backups=BackupPolicy(
                    max_days=keep_backups.max_days,
                    max_count=keep_backups.max_count,
                    max_bytes=keep_backups.max_mib << 20,
                    max_disk_percent=keep_backups.max_disk_percent,
                ),
                snapshots=SnapshotPolicy(keep.last, keep.hourly, keep.daily, keep.weekly),
            ),
        )
    finally:
        await blocking.run(journal.close)


def make_project(bus: Bus, lane: Lane, roles: Roles, opened: Buckets, settings: Settings) -> Project:
    """Return the project's operations under the settings' bounds."""
    lane_settings, leadership = settings.lane, settings.leadership
    bounds = Bounds(
        lock=LockTerms(
            lane_settings.lock_ttl_seconds, lane_settings.stale_lock_grace_seconds, lane_settings.force_push
        ),
        timeout=lane_settings.operation_timeout_seconds,
        allow_secondary_push=leadership.allow_secondary_push,
        allow_primary_pull_override=leadership.allow_primary_pull_override,
        dryrun=settings.worker.dryrun,
        worker=settings.node.claude_mem_dir
        if settings.worker.allow_process_control and not settings.worker.no_restart
        else None,
    )
    return Project(bus, lane, roles, opened.locks, bounds)


async def announce(bus: Bus, event: Event) -> None:
    """Publish a fact to whoever listens; nobody may depend on it, so a failure is only logged."""
    kind = str(event.__struct_config__.tag).rpartition(".")[2]
    subject = subjects.fill(subjects.EVENT, project=event.project, kind=kind, node=event.node)
    try:
        await bus.stream_publish(
            subject,
            encode_event(event),
            message_id=secrets.token_hex(16),
            deadline=Deadline.after(EVENT_DEADLINE),
        )
    except MembridgeError as error:
        log.warning("event not published", kind=kind, reason=error.message)
