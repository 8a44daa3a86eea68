"""The lease entry of one project, and the counter that its epochs come from: every write is a compare-and-set.

An epoch is claimed in the counter before the entry is written, so that none is handed out twice. A write whose answer
was lost is found again by the term that it carries. Nothing here decides when to write.
"""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import msgspec

from membridge.bus.kv import Entry, Kv
from membridge.deadline import Deadline
from membridge.errors import RevisionMovedError
from membridge.leadership.rules import Held, next_epoch
from schemas.identity import NodeId, ProjectId
from schemas.leadership import EpochCounter, LeaderRecord, Policy


@dataclass(frozen=True, slots=True)
class Grant:
    """A lease of ours: how long it may be believed, its entry's value and revision."""

    held: Held
    record: LeaderRecord
    revision: int


class LeaseEntry:
    """Writes the lease of one project for one node."""

    def __init__(
        self, leases: Kv[LeaderRecord], epochs: Kv[EpochCounter], project: ProjectId, *, now: Callable[[], float]
    ) -> None:
        self.leases, self._epochs, self._project, self.now = leases, epochs, project, now
        #: The term that this process wrote last; empty when it gave its lease back.
        self.term = ""

    async def read(self, *, deadline: Deadline) -> Entry[LeaderRecord] | None:
        """Return the lease entry."""
        return await self.leases.get(self._project, deadline=deadline)

    async def counter(self, *, deadline: Deadline) -> Entry[EpochCounter] | None:
        """Return the epoch counter."""
        return await self._epochs.get(self._project, deadline=deadline)

    async def claim(self, counter: Entry[EpochCounter] | None, known: int, *, deadline: Deadline) -> int:
        """Return an epoch above the counter's and `known` that is nobody else's; raise RevisionMovedError in a race."""
        epoch = next_epoch(counter.value.epoch if counter else 0, known)
        value = EpochCounter(epoch=epoch)
        if counter is None:
            await self._epochs.create(self._project, value, deadline=deadline)
        else:
            await self._epochs.update(self._project, value, revision=counter.revision, deadline=deadline)
        return epoch

    async def acquire(self, record: LeaderRecord, over: Entry[LeaderRecord] | None, *, deadline: Deadline) -> Grant:
        """Write the entry of a new term in place of `over`; raise RevisionMovedError when that is not the last one."""
        self.term, sent_at = record.term, self.now()
        if over is None:
            revision = await self.leases.create(self._project, record, ttl=record.lease_seconds, deadline=deadline)
        else:
            revision = await self._update(record, over.revision, deadline=deadline)
        return Grant(Held(record.epoch, sent_at), record, revision)

    async def renew(self, grant: Grant, *, deadline: Deadline) -> Grant:
        """Write the entry again; raise RevisionMovedError when it is another's or gone."""
        sent_at, record = self.now(), renewed(grant.record)
        try:
            revision = await self._update(record, grant.revision, deadline=deadline)
        except RevisionMovedError:
            # The answer to an earlier renewal may have been lost.
            last = await self._revision_of(record.term, deadline=deadline)
            revision = await self._update(record, last, deadline=deadline)
        return Grant(Held(grant.held.epoch, sent_at), record, revision)

    async def release(self, grant: Grant | None, *, deadline: Deadline) -> None:
        """Delete our entry, also one whose writing was never confirmed; raise RevisionMovedError when it is gone."""
        term, self.term = self.term, ""
        if not term:
            return
        try:
            if grant is not None:
                await self.leases.delete(self._project, revision=grant.revision, deadline=deadline)
                return
        except RevisionMovedError:
            pass  # a renewal whose answer was lost
        last = await self._revision_of(term, deadline=deadline)
        await self.leases.delete(self._project, revision=last, deadline=deadline)

    async def _update(self, record: LeaderRecord, revision: int, *, deadline: Deadline) -> int:
        return await self.leases.update(
            self._project, record, revision=revision, ttl=record.lease_seconds, deadline=deadline
        )

    async def _revision_of(self, term: str, *, deadline: Deadline) -> int:
        entry = await self.read(deadline=deadline)
        if entry is None or entry.value.term != term:
            raise RevisionMovedError("the lease is not ours any more")
        return entry.revision


def new_record(node: NodeId, epoch: int, ttl: float, *, policy: Policy, issued_by: str) -> LeaderRecord:
    """Return the entry of a term that begins now."""
    now = datetime.now(UTC)
    return LeaderRecord(
        primary_node_id=node,
        epoch=epoch,
        issued_at=now.isoformat(),
        expires_at=(now + timedelta(seconds=ttl)).isoformat(),
        lease_seconds=ttl,
        policy=policy,
        issued_by=issued_by,
        term=secrets.token_hex(8),
    )


def renewed(record: LeaderRecord) -> LeaderRecord:
    """Return the entry of the same term, with the time that people are told moved on."""
    expires = datetime.now(UTC) + timedelta(seconds=record.lease_seconds)
    return msgspec.structs.replace(record, expires_at=expires.isoformat())
