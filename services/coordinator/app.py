"""The coordinator's composition: what one is made of, and the parts that run.

`part` is what `membridge up` runs beside its node; `run` is a process of its own, which ends when it cannot begin.
"""

import asyncio
import os
import secrets
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial

from membridge import __version__
from membridge.aio import lifecycle
from membridge.aio.backoff import kept_running
from membridge.aio.deadline import Deadline
from membridge.aio.lifecycle import Ready
from membridge.bus.connection import Bus, connect
from membridge.bus.kv import open_bucket
from membridge.bus.service import ServiceIdentity, serve
from membridge.bus.streams import ensure_streams
from membridge.errors import MembridgeError, SettingsError
from membridge.objectstore.protocol import ObjectStore
from membridge.settings import COORDINATOR, Settings, StoreKind
from membridge.system.logging import get_logger
from membridge.system.sd_notify import Notifier
from membridge.system.signals import signals_set
from membridge.wiring.bus import runtime_options
from membridge.wiring.store import open_store
from schemas import buckets, streams
from schemas.identity import node_id_of_host
from services.coordinator import tenure
from services.coordinator.adapter import Adapter
from services.coordinator.endpoints import Endpoints
from services.coordinator.runtime import Limits
from services.coordinator.tenure import Resources
from services.database.engine import open_engine, parse_url
from services.database.records import Queries

log = get_logger("membridge.coordinator")

#: Seconds to connect, to open the database, and to stop.
CONNECT, OPEN, DRAIN = 10.0, 60.0, 10.0
#: The file of the embedded database, in the node's state folder.
FILE = "tasks.db"


async def run(settings: Settings) -> None:
    """Run a coordinator until SIGTERM. Errors: SettingsError, UnavailableError, BusUnavailableError."""
    stopping, notifier = asyncio.Event(), Notifier.of(os.environ)

    def ready() -> None:
        notifier.ready()
        log.info("coordinator ready")

    with signals_set(stopping):
        await lifecycle.run(
            {"watchdog": notifier.alive, "coordinator": partial(coordinate, settings)},
            stopping=stopping,
            on_ready=ready,
            on_stopping=notifier.stopping,
            drain=DRAIN,
        )


async def part(settings: Settings, ready: Ready) -> None:
    """Coordinate beside a node until cancelled: a database that cannot be opened is tried again, and the node goes on.

    Errors: SettingsError.
    """

    def failed(failure: Exception, pause: float) -> None:
        if isinstance(failure, SettingsError):
            raise failure
        log.error(
            "coordinator not running",
            reason=failure.message if isinstance(failure, MembridgeError) else repr(failure),
            remedy=failure.remedy if isinstance(failure, MembridgeError) else "",
            in_seconds=round(pause, 1),
        )
        ready()

    await kept_running(partial(coordinate, settings, ready), name="coordinator", on_failure=failed)


async def coordinate(settings: Settings, ready: Ready) -> None:
    """Coordinate until cancelled. Errors: SettingsError, UnavailableError, BusUnavailableError."""
    async with opened(settings) as resources:
        identity = ServiceIdentity("membridge-runtime", __version__, "LLM tasks", {"coordinator": resources.name})
        async with serve(resources.bus, identity, resources.endpoints.shared()):
            await tenure.contend(resources, ready)


@asynccontextmanager
async def opened(settings: Settings) -> AsyncGenerator[Resources]:
    """Open everything that a coordinator needs."""
    wanted, name = settings.coordinator, f"{node_id_of_host(socket.gethostname())}-{os.getpid()}-{secrets.token_hex(3)}"
    address = wanted.database_url.reveal() if wanted.database_url is not None else ""
    url = parse_url(address, settings.node.state_dir / FILE)
    options = runtime_options(settings, f"membridge-coordinator-{name}", user=COORDINATOR)
    async with (
        open_engine(url, deadline=Deadline.after(OPEN)) as engine,
        connect(options, deadline=Deadline.after(CONNECT)) as bus,
        open_store(bus, _for_artifacts(settings)) as objects,
    ):
        adapter = await _adapter(bus, objects, settings)
        queries = Queries(engine)
        database = url.render_as_string(hide_password=True)
        yield Resources(
            bus=bus,
            engine=engine,
            queries=queries,
            scheduling=await open_bucket(
                bus, buckets.SCHEDULING, replicas=settings.nats.replicas, deadline=Deadline.after(OPEN)
            ),
            adapter=adapter,
            endpoints=Endpoints(bus, queries, objects, name=name, database=database),
            name=name,
            limits=Limits(
                max_prompt_bytes=wanted.max_prompt_bytes,
                max_output_bytes=settings.worker.max_output_bytes,
                lease_seconds=wanted.lease_seconds,
                serial=wanted.serial_contexts,
            ),
        )


async def _adapter(bus: Bus, objects: ObjectStore, settings: Settings) -> Adapter:
    deadline, replicas = Deadline.after(OPEN), settings.nats.replicas
    await ensure_streams(bus, streams.RUNTIME, replicas=replicas, deadline=deadline)
    return Adapter(
        bus=bus,
        leases=await open_bucket(bus, buckets.LEASES, replicas=replicas, deadline=deadline),
        sticky=await open_bucket(bus, buckets.STICKY, replicas=replicas, deadline=deadline),
        objects=objects,
    )


def _for_artifacts(settings: Settings) -> Settings:
    """Return the settings with the bucket of large outputs in place of the snapshots'."""
    if settings.store.backend is not StoreKind.S3:
        return settings
    return replace(settings, store=replace(settings.store, bucket=settings.coordinator.artifact_bucket))
