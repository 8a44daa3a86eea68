"""Make and keep what accounts hold, of projects and of the runtime: streams, buckets, a consumer, the object store.

Runs as the account's operator, who alone may. Nodes find everything there and may make nothing.
"""

from collections.abc import Mapping, Sequence

from membridge.aio.deadline import Deadline
from membridge.bus.connection import Bus
from membridge.bus.kv import open_bucket
from membridge.bus.streams import ensure_streams, open_proposals
from membridge.objectstore.jetstream import BUCKET, JetStreamStore
from membridge.objectstore.reclaiming import reclaim_deleted, reclaim_loose
from schemas import buckets, streams
from schemas.buckets import Bucket
from schemas.identity import ProjectId
from schemas.streams import Stream
from schemas.wire import Wire


async def provision(bus: Bus, project: ProjectId, *, replicas: int, deadline: Deadline) -> None:
    """Make what is missing in the account of `project`; safe to repeat."""
    await _make(bus, streams.ALL, buckets.ALL, replicas=replicas, deadline=deadline)
    await open_proposals(bus, project, deadline=deadline)


async def provision_runtime(bus: Bus, *, replicas: int, deadline: Deadline) -> None:
    """Make what is missing in the account of the task runtime; safe to repeat."""
    await _make(bus, streams.RUNTIME, buckets.RUNTIME, replicas=replicas, deadline=deadline)


async def reclaim(bus: Bus, seen: Mapping[str, int], *, deadline: Deadline) -> dict[str, int]:
    """Free what deleted objects and killed uploads left behind, which nodes may not.

    `seen` is what the last look returned: uploads without an object then.
    """
    store = JetStreamStore(lambda: bus.raw, BUCKET)
    await reclaim_deleted(store, deadline=deadline)
    return await reclaim_loose(store, seen, deadline=deadline)


async def _make(
    bus: Bus, wanted: Sequence[Stream], opened: Sequence[Bucket[Wire]], *, replicas: int, deadline: Deadline
) -> None:
    await ensure_streams(bus, wanted, replicas=replicas, deadline=deadline)
    for bucket in opened:
        await open_bucket(bus, bucket, replicas=replicas, deadline=deadline)
    await JetStreamStore(lambda: bus.raw, BUCKET).ensure(replicas=replicas, deadline=deadline)
