"""Make and keep what accounts hold, of projects and of the runtime: streams, buckets, a consumer, the object store.

Runs as the account's operator, who alone may. Nodes find everything there and may make nothing.
"""

from membridge.bus.connection import Bus
from membridge.bus.kv import open_bucket
from membridge.bus.streams import ensure_streams, open_proposals
from membridge.deadline import Deadline
from membridge.objectstore.jetstream import BUCKET, JetStreamStore
from schemas import buckets, streams
from schemas.identity import ProjectId


async def provision(bus: Bus, project: ProjectId, *, replicas: int, deadline: Deadline) -> None:
    """Make what is missing in the account of `project`; safe to repeat."""
    await ensure_streams(bus, replicas=replicas, deadline=deadline)
    for bucket in buckets.ALL:
        await open_bucket(bus, bucket, replicas=replicas, deadline=deadline)
    await open_proposals(bus, project, deadline=deadline)
    await JetStreamStore(lambda: bus.raw, BUCKET).ensure(replicas=replicas, deadline=deadline)


async def provision_runtime(bus: Bus, *, replicas: int, deadline: Deadline) -> None:
    """Make what is missing in the account of the task runtime; safe to repeat."""
    await ensure_streams(bus, streams.RUNTIME, replicas=replicas, deadline=deadline)
    for bucket in buckets.RUNTIME:
        await open_bucket(bus, bucket, replicas=replicas, deadline=deadline)
    await JetStreamStore(lambda: bus.raw, BUCKET).ensure(replicas=replicas, deadline=deadline)


async def reclaim(bus: Bus, *, deadline: Deadline) -> int:
    """Free what deleted objects left behind, which nodes may not; return how many there were."""
    return await JetStreamStore(lambda: bus.raw, BUCKET).reclaim_deleted(deadline=deadline)
