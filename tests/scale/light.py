"""A light node: on the bus what a real one is while nothing happens, without a database or a process of its own.

It holds the same subscriptions, writes the same presence, watches the same keys, and as primary renews the same lease.
"""

import asyncio
import random
from dataclasses import dataclass

from membridge.aio.deadline import Deadline
from membridge.bus.connection import Bus
from membridge.bus.kv import Kv
from membridge.bus.watch import watch
from membridge.errors import MembridgeError
from membridge.leadership.lease import new_record, renewed
from schemas import buckets, subjects
from schemas.identity import NodeId, ProjectId
from schemas.leadership import LeaderRecord, Policy, Role
from schemas.node import NodePresence, ProjectPresence

#: Seconds between two presence entries, and between two renewals of a lease of thirty seconds.
PRESENCE, RENEW = 10.0, 10.0


@dataclass(slots=True)
class LightNode:
    """One node of one project."""

    bus: Bus
    name: NodeId
    project: ProjectId
    leads: bool
    seen: int = 0

    async def run(self) -> None:
        """Be there until cancelled."""
        async with asyncio.TaskGroup() as group:
            for subject in self._subjects():
                group.create_task(self._hear(subject))
            for bucket in (buckets.HEADS, buckets.LEADERSHIP, buckets.SETTINGS):
                group.create_task(self._watch(bucket))
            group.create_task(self._say())
            if self.leads:
                group.create_task(self._renew())

    def _subjects(self) -> list[str]:
        mine = [operation.at(project=self.project, node=self.name) for operation in subjects.NODE_OPERATIONS]
        shared = [operation.at(project=self.project) for operation in subjects.LEADERSHIP_OPERATIONS[:2]]
        return mine + shared

    async def _hear(self, subject: str) -> None:
        async with self.bus.subscribe(subject) as messages:
            async for _ in messages:
                self.seen += 1

    async def _watch(self, bucket: "buckets.Bucket[buckets.V_co]") -> None:
        async for _ in watch(Kv(self.bus, bucket), self.project):
            self.seen += 1

    async def _say(self) -> None:
        nodes = Kv(self.bus, buckets.NODES)
        await asyncio.sleep(random.uniform(0, PRESENCE))
        while True:
            said = NodePresence(
                node=self.name,
                version="0.1.0",
                python="3.11",
                os="Linux",
                arch="aarch64",
                projects=[ProjectPresence(project=self.project, name="scale", role=Role.SECONDARY)],
            )
            try:
                await nodes.put(self.name, said, deadline=Deadline.after(PRESENCE))
            except MembridgeError:
                self.seen += 0
            await asyncio.sleep(PRESENCE)

    async def _renew(self) -> None:
        leases: Kv[LeaderRecord] = Kv(self.bus, buckets.LEADERSHIP)
        record, revision = new_record(self.name, 1, 30.0, policy=Policy.MANUAL, issued_by=self.name), 0
        await asyncio.sleep(random.uniform(0, RENEW))
        while True:
            record = renewed(record)
            try:
                if revision:
                    revision = await leases.update(
                        self.project, record, revision=revision, ttl=30.0, deadline=Deadline.after(5.0)
                    )
                else:
                    revision = await leases.create(self.project, record, ttl=30.0, deadline=Deadline.after(5.0))
            except MembridgeError:
                revision = 0
            await asyncio.sleep(RENEW)
