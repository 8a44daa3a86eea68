"""One push at a time: a lock in KV across nodes and processes, and a file lock for this machine's state folder.

The lock saves work, it does not protect: commits are fenced without it. Its holder renews it; a holder that has not
renewed for the grace time is gone, and one of an older epoch has nothing left to push. A lost answer does not lose the
lock, and a lock that expired while no other node took it is taken again.
"""

import asyncio
import fcntl
import secrets
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from membridge.aio.backoff import jittered
from membridge.aio.deadline import Deadline
from membridge.aio.tasks import background
from membridge.bus.kv import Entry, Kv
from membridge.bus.lease import Lease, LeaseGoneError
from membridge.errors import LeaseHeldError, LeaseLostError, MembridgeError, RevisionMovedError
from membridge.system import clock, files
from schemas.buckets import PushLeaseRecord
from schemas.identity import NodeId, ProjectId

#: Seconds between two tries for the file lock; jitter comes on top.
FILE_RETRY = 0.1
#: Seconds that giving the lock back may take.
RELEASE = 2.0


@dataclass(frozen=True, slots=True)
class PushLeaseOptions:
    """`ttl`: seconds after which KV forgets the lock; `grace`: seconds without renewal after which it is stale."""

    ttl: float = 7200.0
    grace: float = 60.0
    force: bool = False


@dataclass(frozen=True, slots=True)
class PushClaim:
    """Who wants the lock, and under which epoch."""

    project: ProjectId
    node: NodeId
    epoch: int


@asynccontextmanager
async def push_lease(
    leases: Kv[PushLeaseRecord], claim: PushClaim, *, options: PushLeaseOptions, deadline: Deadline
) -> AsyncGenerator[None]:
    """Hold the project's push lock during the body; renew it meanwhile.

    Raises LeaseHeldError when another push holds and renews it until the deadline, LeaseLostError in the middle of the
    body when it was taken over.
    """
    lease = Lease(leases, claim.project, nonce=lambda record: record.nonce)
    record = PushLeaseRecord(
        owner=claim.node,
        epoch=claim.epoch,
        since=clock.stamp(),
        purpose="push",
        nonce=secrets.token_hex(8),
    )
    try:
        await _acquire(lease, record, claim, options=options, deadline=deadline)
        async with background() as group:
            group.create_task(_renew(lease, record, options), name="push lock renewal")
            yield
    finally:
        # Also what an acquisition that was cancelled or got no answer may have left.
        await _release(lease)


@asynccontextmanager
async def folder_lock(folder: Path, *, deadline: Deadline) -> AsyncGenerator[None]:
    """Hold the project's state folder for this process during the body; another process waits until the deadline."""
    with _opened(folder) as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if deadline.passed:
                    raise LeaseHeldError(
                        f"another membridge process uses {folder}", owner="", remedy="wait for it to finish"
                    ) from error
            await asyncio.sleep(jittered(FILE_RETRY))
        yield


def _opened(folder: Path) -> TextIO:
    with files.translated(folder):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return (folder / "lane.lock").open("a", encoding="utf-8")


async def _acquire(
    lease: Lease[PushLeaseRecord],
    record: PushLeaseRecord,
    claim: PushClaim,
    *,
    options: PushLeaseOptions,
    deadline: Deadline,
) -> None:
    seen: Entry[PushLeaseRecord] | None = None
    since = lease.now()
    while True:
        entry = await lease.read(deadline=deadline)
        if entry is None or seen is None or entry.revision != seen.revision:
            seen, since = entry, lease.now()
        stale = lease.now() - since > options.grace
        if entry is None or stale or _may_take_over(entry.value, claim, options):
            try:
                await lease.acquire(record, entry, ttl=options.ttl, deadline=deadline)
            except RevisionMovedError:
                continue
            return
        if deadline.remaining() < options.grace / 4:
            owner = entry.value.owner
            raise LeaseHeldError(
                f"{owner} has been pushing this project since {clock.local(entry.value.since)}",
                owner=owner,
                remedy="wait for it, or run `FORCE_PUSH=1 membridge push` to take the push lock over",
            )
        await asyncio.sleep(jittered(min(1.0, options.grace / 8)))


def _may_take_over(held: PushLeaseRecord, claim: PushClaim, options: PushLeaseOptions) -> bool:
    # A node pushes one project from one place at a time (the folder lock), so its own old lock is a crash's leftover.
    return options.force or held.owner == claim.node or held.epoch < claim.epoch


async def _renew(lease: Lease[PushLeaseRecord], record: PushLeaseRecord, options: PushLeaseOptions) -> None:
    while True:
        await asyncio.sleep(options.grace / 3)
        deadline = Deadline.after(options.grace / 3)
        try:
            try:
                await lease.renew(record, deadline=deadline)
            except LeaseGoneError:
                await lease.acquire(record, None, ttl=options.ttl, deadline=deadline)
        except RevisionMovedError as error:
            raise LeaseLostError("another push has taken the push lock over", remedy="push again") from error
        except MembridgeError:
            # NATS is away: the commit will say so if it stays away.
            continue


async def _release(lease: Lease[PushLeaseRecord]) -> None:
    try:
        await lease.release(deadline=Deadline.after(RELEASE))
    except MembridgeError:
        # NATS is away: the entry grows stale by itself.
        return
