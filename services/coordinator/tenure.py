"""One tenure of scheduling: how a coordinator takes it, what runs during it, and how it ends.

A key in KV names the coordinator that schedules, and expires when that one is gone. The epoch in the database is the
fence: a coordinator that is late, suspended or cut off has its next transaction rejected.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass

from membridge import __version__
from membridge.aio.backoff import Backoff, jittered
from membridge.aio.deadline import Deadline
from membridge.aio.lifecycle import Ready
from membridge.aio.tasks import leaves
from membridge.bus.connection import Bus
from membridge.bus.expiry import expiries
from membridge.bus.kv import Kv
from membridge.bus.lease import Lease
from membridge.bus.service import ServiceIdentity, serve
from membridge.bus.watch import watch
from membridge.errors import LeaseLostError, MembridgeError, RevisionMovedError
from membridge.system.logging import get_logger
from schemas import buckets, subjects
from schemas.buckets import SchedulerRecord
from schemas.node import Empty, NodePresence
from schemas.task_changes import TaskJob
from schemas.wire import WireError, decode, encode
from services.coordinator.adapter import Adapter
from services.coordinator.endpoints import Endpoints
from services.coordinator.engine.events import Compared, Lapsed, Silent
from services.coordinator.engine.reports import ROUND
from services.coordinator.engine.state import Limits
from services.coordinator.engine.workers import silent_since
from services.coordinator.liveness import Liveness
from services.coordinator.retirement import Retirement
from services.coordinator.runtime import Runtime
from services.coordinator.store.epoch import begin_tenure, group_commit_of
from services.coordinator.store.queries import Queries
from services.coordinator.task_jobs import TaskJobs
from services.database.engine import Engine

log = get_logger("membridge.coordinator")

#: The key that names the scheduling coordinator, and the seconds between two renewals.
KEY, RENEW = "tasks", 3.0
#: Seconds that one write of it may take.
WRITE = 2.0
#: Seconds until a coordinator whose tenure failed tries again: at first, and after several short tenures.
PAUSE, MOST_PAUSE = 1.0, 15.0
#: Seconds without a presence message after which a worker counts as offline.
SILENCE = 30.0
#: Seconds that reading a bucket may take.
READ = 3.0


@dataclass(frozen=True, slots=True)
class Resources:
    """What a coordinator needs to schedule."""

    bus: Bus
    engine: Engine
    queries: Queries
    scheduling: Kv[SchedulerRecord]
    adapter: Adapter
    endpoints: Endpoints
    name: str
    limits: Limits
    retirement: Retirement
    task_jobs: Kv[TaskJob]


async def contend(resources: Resources, ready: Ready) -> None:
    """Schedule whenever no other coordinator does, until cancelled. A failure ends the tenure and not this."""
    ready()
    loop, backoff = asyncio.get_running_loop(), Backoff(PAUSE, MOST_PAUSE)
    while True:
        began = loop.time()
        try:
            await _vacancy(resources)
            await _lead(resources)
        except* MembridgeError as failures:
            reasons = sorted({str(error) for error in leaves(failures)})
            log.warning("tenure over", reason="; ".join(reasons))
        except* Exception:
            log.exception("tenure over")
        if loop.time() - began > MOST_PAUSE:
            backoff.reset()
        await asyncio.sleep(backoff.failed())


async def _vacancy(resources: Resources) -> None:
    """Wait until no coordinator schedules."""
    async with aclosing(watch(resources.scheduling, KEY)) as changes:
        async for change in changes:
            if change.entry is None:
                return


async def _lead(resources: Resources) -> None:
    """Take the key and schedule until it is lost; raise what ended the tenure."""
    # The name is this process's own, so it serves as the nonce.
    lease = Lease(resources.scheduling, KEY, nonce=lambda record: record.coordinator)
    try:
        try:
            await lease.acquire(
                SchedulerRecord(coordinator=resources.name, epoch=0), None, deadline=Deadline.after(WRITE)
            )
        except RevisionMovedError:
            return
        await _schedule(resources, lease)
    finally:
        await _resign(lease)


async def _schedule(resources: Resources, lease: Lease[SchedulerRecord]) -> None:
    epoch = await begin_tenure(resources.engine)
    record = SchedulerRecord(coordinator=resources.name, epoch=epoch)
    log.info("tenure begun", epoch=epoch, name=resources.name)
    async with group_commit_of(resources.engine, epoch) as group_commit, asyncio.TaskGroup() as group:
        group.create_task(_keep(lease, record), name="scheduler's key")
        runtime = Runtime(group, group_commit, resources.queries, resources.adapter, resources.limits)
        group.create_task(resources.adapter.publisher.run(), name="events")
        try:
            kept = await resources.adapter.leases.entries(deadline=Deadline.after(READ))
            await runtime.load(kept.keys())
            group.create_task(runtime.run(), name="shell")
            group.create_task(_hear_expiries(resources, runtime), name="expiries")
            group.create_task(_hear(resources, runtime), name="presence")
            group.create_task(_compare(resources, runtime), name="comparison with KV")
            group.create_task(resources.retirement.run(), name="retention of outputs")
            jobs = TaskJobs(resources.task_jobs, resources.queries, runtime, epoch)
            group.create_task(jobs.run(), name="task jobs")
            async with _answering(resources, runtime, jobs):
                await asyncio.get_running_loop().create_future()
        finally:
            runtime.close()


@asynccontextmanager
async def _answering(resources: Resources, runtime: Runtime, jobs: TaskJobs) -> AsyncGenerator[None]:
    identity = ServiceIdentity(
        "membridge-scheduler", __version__, "schedules LLM tasks", {"coordinator": resources.name}
    )
    resources.endpoints.runtime, resources.endpoints.jobs = runtime, jobs
    try:
        async with serve(resources.bus, identity, resources.endpoints.of_scheduler(), grace=0.5):
            yield
    finally:
        resources.endpoints.runtime = resources.endpoints.jobs = None


async def _keep(lease: Lease[SchedulerRecord], record: SchedulerRecord) -> None:
    """Renew the key; raise LeaseLostError when another coordinator has it or it was not renewed in time."""
    lives = buckets.SCHEDULING.ttl or RENEW
    while True:
        believed_until = (lease.held.sent_at if lease.held else 0.0) + lives
        try:
            await lease.renew(record, deadline=Deadline.after(WRITE))
        except RevisionMovedError as error:
            raise LeaseLostError("another coordinator schedules now") from error
        except MembridgeError as error:
            if lease.now() > believed_until - WRITE:
                raise LeaseLostError("the scheduler's key could not be renewed") from error
        await asyncio.sleep(jittered(RENEW, least=0.8))


async def _resign(lease: Lease[SchedulerRecord]) -> None:
    try:
        await lease.release(deadline=Deadline.after(WRITE))
    except MembridgeError as error:
        log.info("scheduler's key not given back", reason=error.message)


async def _hear(resources: Resources, runtime: Runtime) -> None:
    """Call all workers and follow their presence; a worker counts once it answered a request."""
    async with (
        asyncio.TaskGroup() as group,
        resources.bus.subscribe(subjects.wildcard(subjects.WORKER_PRESENCE)) as news,
    ):
        liveness = Liveness(resources.bus, runtime, group)
        await resources.bus.publish(subjects.ROLL_CALL, encode(Empty()))
        async for message in news:
            try:
                said = decode(message.body, NodePresence)
            except WireError as error:
                log.debug("presence cannot be read", subject=message.subject, reason=str(error))
                continue
            # The server lets a worker publish on its own subject only.
            if message.subject == subjects.fill(subjects.WORKER_PRESENCE, worker=said.node):
                liveness.take(said)


async def _hear_expiries(resources: Resources, runtime: Runtime) -> None:
    """End leases of earlier tenures when their entries in KV expire."""
    async with aclosing(expiries(resources.adapter.leases)) as keys:
        async for lease_id in keys:
            runtime.post(Lapsed(lease_id))


async def _compare(resources: Resources, runtime: Runtime) -> None:
    """Every round: mark silent workers as offline, and make KV agree with the active leases."""
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(ROUND)
        if silent := silent_since(await runtime.settled(), loop.time() - SILENCE):
            runtime.post(Silent(silent))
        try:
            kept = await resources.adapter.leases.entries(deadline=Deadline.after(ROUND))
            runtime.post(Compared(frozenset(kept)))
            state = await runtime.settled()
            for entry in [entry for entry in kept.values() if entry.key not in state.leases]:
                await resources.adapter.let_go(entry.value)
        except MembridgeError as error:
            log.info("leases not compared", reason=error.message)
