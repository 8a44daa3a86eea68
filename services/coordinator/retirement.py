"""Retention of large outputs: objects of artifacts go after some days; their rows in the database stay.

Ids tell when they were made and sort by that, and keys begin with the task's id. So a run lists the oldest objects
only, and what is not named as the runtime names its outputs is never touched. Killed or raced by another coordinator,
the next run goes on: a deletion is repeated without harm. What was deleted is answered as such.
"""

import asyncio
from contextlib import aclosing
from dataclasses import dataclass

from membridge.aio import tasks
from membridge.aio.backoff import jittered
from membridge.aio.deadline import Deadline
from membridge.errors import MembridgeError
from membridge.objectstore.encryption.guard import backend
from membridge.objectstore.jetstream import JetStreamStore
from membridge.objectstore.protocol import ObjectStore
from membridge.objectstore.reclaiming import reclaim_loose
from membridge.system import clock
from membridge.system.logging import get_logger
from services.coordinator.engine.ids import made_at
from services.coordinator.outputs import ARTIFACTS

log = get_logger("membridge.coordinator")

#: Seconds between two runs, and those that one may take.
EVERY, LONGEST = 6 * 3600.0, 600.0
#: Objects that are listed before they are deleted, and deleted at once.
BATCH, AT_ONCE = 500, 8
_DAY = 86_400.0


@dataclass(slots=True)
class Retirement:
    """Deletes the outputs in `objects` that are older than `days`; none with 0."""

    objects: ObjectStore
    days: int

    async def run(self) -> None:
        """Delete now and then, until cancelled. Also frees what killed uploads left in a store in NATS."""
        seen = dict[str, int]()
        while True:
            deadline = Deadline.after(LONGEST)
            try:
                if self.days:
                    await self.retire(clock.now().timestamp(), deadline=deadline)
                below = backend(self.objects)
                if isinstance(below, JetStreamStore) and below.purges:
                    seen = await reclaim_loose(below, seen, deadline=deadline)
            except MembridgeError as error:
                log.info("old outputs not deleted", reason=error.message)
            await asyncio.sleep(jittered(EVERY))

    async def retire(self, now: float, *, deadline: Deadline) -> int:
        """Delete the outputs that are too old `now`, in seconds since 1970; return how many."""
        oldest, done = now - self.days * _DAY, 0
        while True:
            keys = await self._older(oldest, deadline)
            await tasks.each(keys, lambda key: self.objects.delete(key, deadline=deadline), at_once=AT_ONCE)
            done += len(keys)
            if len(keys) < BATCH:
                break
        if done:
            log.info("old outputs deleted", deleted=done)
        return done

    async def _older(self, oldest: float, deadline: Deadline) -> list[str]:
        """Return the oldest keys of outputs that were made before `oldest`, at most a batch."""
        keys: list[str] = []
        async with aclosing(self.objects.list(ARTIFACTS, deadline=deadline)) as listing:
            async for info in listing:
                task, _, output = info.key.removeprefix(ARTIFACTS).partition("/")
                begun, made = made_at(task), made_at(output)
                if begun is not None and begun >= oldest:
                    # All keys that follow are of younger tasks.
                    break
                if begun is not None and made is not None and made < oldest:
                    keys.append(info.key)
                if len(keys) == BATCH:
                    break
        return keys
