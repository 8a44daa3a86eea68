"""The lease entry of one project, and the counter that its epochs come from: every write is a compare-and-set.

An epoch is claimed in the counter before the entry is written, so that none is granted twice. The lease id in the entry
is the nonce by which `membridge.bus.lease` finds a write whose answer was lost. Nothing here decides when to write.
"""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

import msgspec

from membridge.aio.deadline import Deadline
from membridge.bus.kv import Entry, Kv
from membridge.bus.lease import Lease
from membridge.leadership.rules import HeldEpoch, next_epoch
from membridge.system import clock
from schemas.identity import NodeId, ProjectId
from schemas.leadership import EpochCounter, LeaderRecord, Policy


@dataclass(frozen=True, slots=True)
class HeldLease:
    """A lease of ours: when it was renewed, its entry's value and revision."""

    held: HeldEpoch
    record: LeaderRecord
    revision: int


class LeaseEntry:
    """Writes the lease of one project for one node."""

    def __init__(
        self, leases: Kv[LeaderRecord], epochs: Kv[EpochCounter], project: ProjectId, *, now: Callable[[], float]
    ) -> None:
        self.leases, self._epochs, self._project, self.now = leases, epochs, project, now
        self._lease: Lease[LeaderRecord] = Lease(leases, project, nonce=lambda record: record.term, now=now)
        #: The lease id that this process wrote last; empty after it released its lease.
        self.lease_id = ""

    async def read(self, *, deadline: Deadline) -> Entry[LeaderRecord] | None:
        """Return the lease entry."""
        return await self._lease.read(deadline=deadline)

    async def counter(self, *, deadline: Deadline) -> Entry[EpochCounter] | None:
        """Return the epoch counter."""
        return await self._epochs.get(self._project, deadline=deadline)

    async def claim(self, counter: Entry[EpochCounter] | None, known: int, *, deadline: Deadline) -> int:
        """Claim an epoch above the counter's and `known` for this node; raise RevisionMovedError in a race."""
        epoch = next_epoch(counter.value.epoch if counter else 0, known)
        value = EpochCounter(epoch=epoch)
        if counter is None:
            await self._epochs.create(self._project, value, deadline=deadline)
        else:
            await self._epochs.update(self._project, value, revision=counter.revision, deadline=deadline)
        return epoch

    async def acquire(self, record: LeaderRecord, over: Entry[LeaderRecord] | None, *, deadline: Deadline) -> HeldLease:
        """Write the entry of a new lease in place of `over`; raise RevisionMovedError when that is not the last one."""
        self.lease_id = record.term
        held = await self._lease.acquire(record, over, ttl=record.lease_seconds, deadline=deadline)
        return HeldLease(HeldEpoch(record.epoch, held.sent_at), record, held.revision)

    async def renew(self, ours: HeldLease, *, deadline: Deadline) -> HeldLease:
        """Write the entry again; raise RevisionMovedError when it is another node's or gone."""
        held = await self._lease.renew(renewed(ours.record), deadline=deadline)
        return HeldLease(HeldEpoch(ours.held.epoch, held.sent_at), held.value, held.revision)

    async def release(self, *, deadline: Deadline) -> None:
        """Delete our entry, also if its write was never confirmed."""
        if self.lease_id:
            self.lease_id = ""
            await self._lease.release(deadline=deadline)


def new_record(node: NodeId, epoch: int, ttl: float, *, policy: Policy, issued_by: str) -> LeaderRecord:
    """Return the entry of a lease that begins now."""
    now = clock.now()
    return LeaderRecord(
        primary_node_id=node,
        epoch=epoch,
        issued_at=clock.stamp(now),
        expires_at=clock.stamp(now + timedelta(seconds=ttl)),
        lease_seconds=ttl,
        policy=policy,
        issued_by=issued_by,
        term=secrets.token_hex(8),
    )


def renewed(record: LeaderRecord) -> LeaderRecord:
    """Return the entry of the same lease with a later expiry, which is shown to people only."""
    expires = clock.now() + timedelta(seconds=record.lease_seconds)
    return msgspec.structs.replace(record, expires_at=clock.stamp(expires))
