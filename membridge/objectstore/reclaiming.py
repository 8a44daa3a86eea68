"""Free leftovers in the JetStream object store: deleted objects, and chunks of killed uploads.

Only for users that may purge. No clock is compared: an upload without an object is dead if it did not grow between two
looks, which are farther apart than any upload may take.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from membridge.aio.backoff import jittered
from membridge.aio.deadline import Deadline
from membridge.aio.lifecycle import Ready
from membridge.errors import MembridgeError
from membridge.objectstore.jetstream import JetStreamStore
from membridge.system.logging import get_logger

if TYPE_CHECKING:
    from membridge.objectstore.messages import Meta

log = get_logger("membridge.objectstore")

#: Seconds between two looks, and what one may take.
EVERY, LOOK = 3600.0, 300.0


async def reclaim_deleted(store: JetStreamStore, *, deadline: Deadline) -> int:
    """Free the chunks and tombstones of deleted objects; return how many objects."""
    last: dict[str, tuple[int, Meta]] = {}
    nuids: set[str] = set()
    async for sequence, meta in store.metas(deadline=deadline):
        nuids.add(meta.nuid)
        last[meta.name] = (sequence, meta)
    live = {meta.nuid for _, meta in last.values() if not meta.deleted}
    for nuid in nuids - live:
        await store.purge(store.chunk_subject(nuid), deadline=deadline)
    gone = [(sequence, meta) for sequence, meta in last.values() if meta.deleted]
    for sequence, meta in gone:
        await store.purge(store.meta_subject(meta.name), up_to=sequence, deadline=deadline)
    return len(gone)


async def reclaim_loose(store: JetStreamStore, seen: Mapping[str, int], *, deadline: Deadline) -> dict[str, int]:
    """Free the chunks of uploads that have no object and have not grown since they were `seen`.

    Returns, for the next look, those that have no object now and may still be running.
    """
    # In this order: an upload that ends meanwhile is found among the objects.
    counts = await store.chunk_counts(deadline=deadline)
    known = {meta.nuid async for _, meta in store.metas(deadline=deadline)}
    loose = {nuid: number for nuid, number in counts.items() if nuid not in known}
    dead = [nuid for nuid, number in loose.items() if seen.get(nuid) == number]
    for nuid in dead:
        await store.purge(store.chunk_subject(nuid), deadline=deadline)
        del loose[nuid]
    if dead:
        log.info("chunks of killed uploads freed", deleted=len(dead))
    return loose


async def keep_reclaiming(store: JetStreamStore, wanted: Callable[[], bool], ready: Ready) -> None:
    """Reclaim leftovers now and then, while `wanted`; runs until cancelled."""
    seen: dict[str, int] = {}
    ready()
    while True:
        await asyncio.sleep(jittered(EVERY))
        if not wanted():
            seen = {}
            continue
        try:
            seen = await reclaim_loose(store, seen, deadline=Deadline.after(LOOK))
        except MembridgeError as error:
            log.info("loose chunks not looked for", reason=error.message)
