"""Make what the accounts of projects and of the runtime hold: streams, buckets, a consumer, the object store.

Runs as the account's operator, the only user with that right: nodes may not make anything.
"""

from collections.abc import Mapping, Sequence

from membridge.aio.deadline import Deadline
from membridge.bus.connection import Bus
from membridge.bus.streams import open_proposals
from membridge.objectstore.jetstream import ARTIFACTS, BUCKET, JetStreamStore
from membridge.objectstore.reclaiming import reclaim_deleted, reclaim_loose
from membridge.wiring.bus import ensure
from membridge.wiring.service import Service
from schemas import buckets, streams
from schemas.claude_config import CLAUDE_CONFIG
from schemas.identity import ProjectId


async def provision(bus: Bus, project: ProjectId, *, replicas: int, deadline: Deadline) -> None:
    """Make what is missing in the account of `project`; safe to repeat."""
    await ensure(bus, streams.ALL, (*buckets.ALL, CLAUDE_CONFIG), replicas=replicas, deadline=deadline)
    await _ensure_store(bus, BUCKET, replicas=replicas, deadline=deadline)
    await open_proposals(bus, project, deadline=deadline)


async def provision_runtime(bus: Bus, services: Sequence[Service], *, replicas: int, deadline: Deadline) -> None:
    """Make what is missing in the account that the services share; safe to repeat."""
    for service in services:
        await ensure(bus, service.all_streams, service.all_buckets, replicas=replicas, deadline=deadline)
    await _ensure_store(bus, ARTIFACTS, replicas=replicas, deadline=deadline)


async def reclaim(bus: Bus, bucket: str, seen: Mapping[str, int], *, deadline: Deadline) -> dict[str, int]:
    """Free what deleted objects and killed uploads left behind in a bucket; nodes have no right to.

    `seen` is the last call's result: the uploads that had no object then.
    """
    store = JetStreamStore(bus, bucket)
    await reclaim_deleted(store, deadline=deadline)
    return await reclaim_loose(store, seen, deadline=deadline)


async def _ensure_store(bus: Bus, bucket: str, *, replicas: int, deadline: Deadline) -> None:
    await JetStreamStore(bus, bucket).ensure(replicas=replicas, deadline=deadline)
