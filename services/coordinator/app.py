"""The coordinator's composition: what one is made of, and the parts that run.

`part` is what `membridge up` runs beside its node; `run` is a process of its own, which ends when it cannot begin.
"""

import asyncio
import os
import random
import secrets
import socket
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial

from membridge import __version__, lifecycle
from membridge.bus.connection import Bus, connect
from membridge.bus.kv import open_bucket
from membridge.bus.service import ServiceIdentity, serve
from membridge.bus.streams import ensure_streams
from membridge.deadline import Deadline
from membridge.errors import MembridgeError, SettingsError
from membridge.lifecycle import PartEndedError, Ready
from membridge.logging import get_logger
from membridge.node import rules
from membridge.node.daemon import signals_set
from membridge.node.notify import Notifier
from membridge.node.opening import open_store, runtime_options
from membridge.objectstore.protocol import ObjectStore
from membridge.settings import COORDINATOR, Settings, StoreKind
from schemas import buckets, streams
from schemas.identity import node_id_of_host
from services.coordinator import term
from services.coordinator.answers import Answers
from services.coordinator.runtime import Limits
from services.coordinator.term import Seat
from services.coordinator.world import World
from services.database.engine import open_engine, parse_url
from services.database.records import Records

log = get_logger("membridge.coordinator")

#: Seconds to connect, to open the database, and to stop.
CONNECT, OPEN, DRAIN = 10.0, 60.0, 10.0
#: Seconds after which a coordinator that failed had been well: the next failure is a first one again.
HEALTHY = 60.0
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
    failures = 0
    while True:
        began = time.monotonic()
        failure = await lifecycle.apart(coordinate(settings, ready), name="coordinate")
        if isinstance(failure, SettingsError):
            raise failure
        failures = 1 if time.monotonic() - began > HEALTHY else failures + 1
        pause = rules.retry_wait(failures, random.random())  # noqa: S311 - jitter
        told = failure or PartEndedError("the coordinator ended unasked")
        log.error(
            "coordinator not running",
            reason=told.message if isinstance(told, MembridgeError) else repr(told),
            remedy=told.remedy if isinstance(told, MembridgeError) else "",
            in_seconds=round(pause, 1),
        )
        ready()
        await asyncio.sleep(pause)


async def coordinate(settings: Settings, ready: Ready) -> None:
    """Coordinate until cancelled. Errors: SettingsError, UnavailableError, BusUnavailableError."""
    async with opened(settings) as seat:
        identity = ServiceIdentity("membridge-runtime", __version__, "LLM tasks", {"coordinator": seat.name})
        async with serve(seat.bus, identity, seat.answers.shared()):
            await term.contend(seat, ready)


@asynccontextmanager
async def opened(settings: Settings) -> AsyncGenerator[Seat]:
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
        world = await _world(bus, objects, settings)
        records = Records(engine)
        database = url.render_as_string(hide_password=True)
        yield Seat(
            bus=bus,
            engine=engine,
            records=records,
            scheduling=await open_bucket(
                bus, buckets.SCHEDULING, replicas=settings.nats.replicas, deadline=Deadline.after(OPEN)
            ),
            world=world,
            answers=Answers(bus, records, objects, name=name, database=database),
            name=name,
            limits=Limits(
                max_prompt_bytes=wanted.max_prompt_bytes,
                max_output_bytes=settings.executor.max_output_bytes,
                lease_seconds=wanted.lease_seconds,
                serial=wanted.serial_contexts,
            ),
        )


async def _world(bus: Bus, objects: ObjectStore, settings: Settings) -> World:
    deadline, replicas = Deadline.after(OPEN), settings.nats.replicas
    await ensure_streams(bus, streams.RUNTIME, replicas=replicas, deadline=deadline)
    return World(
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
