"""The coordinator's composition: what one is made of, and the part that runs."""

import os
import secrets
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace

from membridge import __version__
from membridge.aio.lifecycle import Ready
from membridge.bus.kv import Kv
from membridge.bus.publisher import Publisher
from membridge.bus.service import ServiceIdentity, serve
from membridge.objectstore.jetstream import ARTIFACTS
from membridge.settings import Settings, StoreKind
from membridge.system.memory import rarely_collected
from membridge.wiring.service import Service
from membridge.wiring.store import open_store
from schemas import buckets
from schemas.identity import node_id_of_host
from services.coordinator import tenure
from services.coordinator.adapter import Adapter
from services.coordinator.endpoints import Endpoints
from services.coordinator.engine.state import Limits
from services.coordinator.retirement import Retirement
from services.coordinator.settings import CoordinatorSettings
from services.coordinator.store.queries import Queries
from services.coordinator.tenure import Resources
from services.database.engine import parse_url
from services.service import opened

#: The file of the embedded database, in the node's state folder.
FILE = "tasks.db"
#: Events that may wait for the bus: a batch has a few of each of its tasks.
EVENTS = 65_536


async def coordinate(service: Service, settings: Settings, ready: Ready) -> None:
    """Coordinate until cancelled. Errors: SettingsError, UnavailableError, BusUnavailableError."""
    async with resources_of(service, settings) as resources:
        rarely_collected()
        identity = ServiceIdentity("membridge-runtime", __version__, "LLM tasks", {"coordinator": resources.name})
        async with serve(resources.bus, identity, resources.endpoints.shared()):
            await tenure.contend(resources, ready)


@asynccontextmanager
async def resources_of(service: Service, settings: Settings) -> AsyncGenerator[Resources]:
    """Open everything that a coordinator needs."""
    wanted = settings.of(CoordinatorSettings)
    name = f"{node_id_of_host(socket.gethostname())}-{os.getpid()}-{secrets.token_hex(3)}"
    address = wanted.database_url.reveal() if wanted.database_url is not None else ""
    url = parse_url(address, settings.node.state_dir / FILE)
    async with (
        opened(service, settings, url, f"membridge-coordinator-{name}") as (engine, bus),
        open_store(bus, _for_artifacts(settings), bucket=ARTIFACTS) as objects,
    ):
        queries = Queries(engine)
        database = url.render_as_string(hide_password=True)
        yield Resources(
            bus=bus,
            engine=engine,
            queries=queries,
            scheduling=Kv(bus, buckets.SCHEDULING),
            adapter=Adapter(
                bus=bus,
                leases=Kv(bus, buckets.LEASES),
                publisher=Publisher(bus, bound=EVENTS),
                objects=objects,
            ),
            endpoints=Endpoints(bus, queries, objects, name=name, database=database),
            name=name,
            limits=Limits(
                max_prompt_bytes=wanted.max_prompt_bytes,
                max_output_bytes=settings.worker.max_output_bytes,
                lease_seconds=wanted.lease_seconds,
                serial=wanted.serial_contexts,
            ),
            retirement=Retirement(objects, wanted.artifact_days),
            task_jobs=Kv(bus, buckets.TASK_JOBS),
        )


def _for_artifacts(settings: Settings) -> Settings:
    """Return the settings with the S3 bucket of large outputs in place of the snapshots'."""
    if settings.store.backend is not StoreKind.S3:
        return settings
    return replace(settings, store=replace(settings.store, bucket=settings.of(CoordinatorSettings).artifact_bucket))
