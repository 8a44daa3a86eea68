"""One push at a time: a lock in KV across nodes and processes, and a file lock for this machine's state folder.

The lock saves work, it does not protect: commits are fenced without it. Its holder renews it; a holder that has not
renewed for the grace time is gone, and one of an older epoch has nothing left to push.
"""

import asyncio
import fcntl
import random
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from membridge.bus.kv import Entry, Kv
from membridge.deadline import Deadline
from membridge.errors import LeaseHeldError, LeaseLostError, MembridgeError, RevisionMovedError
from membridge.snapshot import files
from schemas.buckets import LockRecord
from schemas.identity import NodeId, ProjectId

#: Seconds between two tries for the file lock; jitter comes on top.
FILE_RETRY = 0.05


@dataclass(frozen=True, slots=True)
class LockTerms:
    """`ttl`: seconds after which KV forgets the lock; `grace`: seconds without renewal after which it is stale."""

    ttl: float = 7200.0
    grace: float = 60.0
    force: bool = False


@dataclass(frozen=True, slots=True)
class Claim:
    """Who wants the lock, and under which epoch."""

    project: ProjectId
    node: NodeId
    epoch: int


@asynccontextmanager
async def push_lock(
    locks: Kv[LockRecord], claim: Claim, *, terms: LockTerms, deadline: Deadline
) -> AsyncGenerator[None]:
    """Hold the project's push lock during the body; renew it meanwhile.

    Raises LeaseHeldError when another push holds and renews it until the deadline, LeaseLostError in the middle of the
    body when it was taken over.
    """
    revision = await _acquire(locks, claim, terms=terms, deadline=deadline)
    renewal = _Renewal(locks, claim, terms, revision)
    try:
        async with asyncio.TaskGroup() as group:
            renewing = group.create_task(renewal.run(), name="push lock renewal")
            try:
                yield
            finally:
                renewing.cancel()
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
    finally:
        await _release(locks, claim, renewal.revision)


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
                        f"another membridge process works in {folder}", owner="", remedy="wait for it to finish"
                    ) from error
            await asyncio.sleep(FILE_RETRY * (1 + random.random()))  # noqa: S311 - jitter
        yield


def _opened(folder: Path) -> TextIO:
    with files.translated(folder):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return (folder / "lane.lock").open("a", encoding="utf-8")


async def _acquire(locks: Kv[LockRecord], claim: Claim, *, terms: LockTerms, deadline: Deadline) -> int:
    seen: Entry[LockRecord] | None = None
    unchanged = Deadline.after(terms.grace)
    while True:
        entry = await locks.get(claim.project, deadline=deadline)
        if entry is None or seen is None or entry.revision != seen.revision:
            seen, unchanged = entry, Deadline.after(terms.grace)
        try:
            if entry is None:
                return await locks.create(claim.project, _record(claim), ttl=terms.ttl, deadline=deadline)
            if _may_take_over(entry.value, claim, terms) or unchanged.passed:
                return await locks.update(
                    claim.project, _record(claim), revision=entry.revision, ttl=terms.ttl, deadline=deadline
                )
        except RevisionMovedError:
            continue
        if deadline.remaining() < terms.grace / 4:
            owner = entry.value.owner
            raise LeaseHeldError(
                f"{owner} has been pushing this project since {entry.value.since}",
                owner=owner,
                remedy="wait for it, or set FORCE_PUSH=1 to take the lock over",
            )
        await asyncio.sleep(min(1.0, terms.grace / 8) * (0.5 + random.random()))  # noqa: S311 - jitter


def _may_take_over(held: LockRecord, claim: Claim, terms: LockTerms) -> bool:
    # A node pushes one project from one place at a time (the folder lock), so its own old lock is a crash's leftover.
    return terms.force or held.owner == claim.node or held.epoch < claim.epoch


def _record(claim: Claim) -> LockRecord:
    return LockRecord(owner=claim.node, epoch=claim.epoch, since=datetime.now(UTC).isoformat(), purpose="push")


async def _release(locks: Kv[LockRecord], claim: Claim, revision: int) -> None:
    try:
        await locks.delete(claim.project, revision=revision, deadline=Deadline.after(2.0))
    except MembridgeError:
        # Somebody took it over, or NATS is away: the entry grows stale by itself.
        return


class _Renewal:
    def __init__(self, locks: Kv[LockRecord], claim: Claim, terms: LockTerms, revision: int) -> None:
        self._locks, self._claim, self._terms = locks, claim, terms
        self.revision = revision

    async def run(self) -> None:
        while True:
            await asyncio.sleep(self._terms.grace / 3)
            try:
                self.revision = await self._locks.update(
                    self._claim.project,
                    _record(self._claim),
                    revision=self.revision,
                    ttl=self._terms.ttl,
                    deadline=Deadline.after(self._terms.grace / 3),
                )
            except RevisionMovedError as error:
                raise LeaseLostError("the push lock was taken over", remedy="push again") from error
            except MembridgeError:
                # NATS is away: the commit will say so if it stays away.
                continue
