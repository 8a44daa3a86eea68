"""One project on this node: push, pull and the other operations on its lane, as the node's role allows.

They run one at a time: the folder lock keeps other processes out, the push lease other nodes. An operation reads the
role once, at its start; if it becomes stale, the fence rejects the commit.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from membridge.aio import threads
from membridge.aio.backoff import pause_after
from membridge.aio.deadline import Deadline
from membridge.bus.connection import Bus
from membridge.bus.kv import Kv
from membridge.bus.streams import Delivery, WorkQueue, life_of
from membridge.claudemem import database, worker_process
from membridge.commits import gc, heads, proposal_bundles
from membridge.commits.progress import ProgressTracker
from membridge.errors import (
    CorruptObjectError,
    DatabaseCorruptError,
    DatabaseMissingError,
    DeadlineExceededError,
    HeadMovedError,
    MembridgeError,
    ObjectMissingError,
    RefusedError,
    ShrinkRefusedError,
)
from membridge.merge import collect
from membridge.merge.audit import AUDIT_FILE, Audit, AuditNote, Slice
from membridge.node import rules
from membridge.node.bounds import Bounds
from membridge.node.deliveries import announcement_of, set_aside
from membridge.node.figures import Figures, presence_of
from membridge.node.roles import Roles
from membridge.snapshot import proposals, pull, push, rollback_guard, standing
from membridge.snapshot.lane import Lane
from membridge.snapshot.push_lease import PushClaim, folder_lock, push_lease
from membridge.system.logging import get_logger
from schemas import streams
from schemas.buckets import PushLeaseRecord
from schemas.commits import GcReply, GcRequest, RecoverReply, RecoverRequest
from schemas.leadership import Role
from schemas.node import ProjectPresence
from schemas.proposal import ProposalAnnouncement
from schemas.snapshot import PullOutcome, PullReply, PullRequest, PushOutcome, PushReply, PushRequest, SnapshotRecord

if TYPE_CHECKING:
    from membridge.claudemem.search import Found
    from membridge.snapshot.reinstate import Reinstated
    from membridge.snapshot.restore import Restored

log = get_logger("membridge.project")

#: Times that a commit is tried again after another node committed first (without roles that is normal).
COMMIT_TRIES = 6
#: Seconds that an answer may wait for newer figures: on its own, and while a comparison of everything has the database.
AT_ONCE, BRIEFLY = 1.0, 0.05
#: Seconds that the row index may take to take in what changed.
FEED = 30.0
#: Seconds that a slice of the comparison of everything may take, with whatever the row index has to catch up with.
AUDIT = 60.0


class Project:
    """The operations of one project. Safe for concurrent callers."""

    def __init__(self, bus: Bus, lane: Lane, roles: Roles, push_leases: Kv[PushLeaseRecord], bounds: Bounds) -> None:
        self._bus, self._push_leases, self._bounds, self.lane, self.roles = bus, push_leases, bounds, lane, roles
        self._turn = asyncio.Lock()
        self._audit, self._is_auditing = Audit(lane.folder / AUDIT_FILE, lane.index), False
        self.figures = Figures(lane, lambda: self.busy, self.patience)

    def deadline(self) -> Deadline:
        """Return the deadline of an operation that starts now."""
        return Deadline.after(self._bounds.timeout)

    async def push(self, request: PushRequest, progress: ProgressTracker, *, deadline: Deadline) -> PushReply:
        """Commit on a primary, propose on a secondary. Errors: SecondaryPushBlockedError, and those of `push`."""
        view = self.roles.view()
        action = rules.push_action(
            view.role,
            snapshot=request.snapshot,
            allow_secondary_push=self._bounds.allow_secondary_push or request.allow_secondary,
            primary=view.leader,
        )
        async with self._syncing(progress, heals=not request.allow_shrink, deadline=deadline):
            if self._bounds.dryrun:
                rows = await threads.run(standing.proposable, self.lane, deadline=deadline)
                return PushReply(outcome=PushOutcome.DRY_RUN, rows=len(rows))
            if action is rules.PushAction.PROPOSE:
                return await self._propose(progress, allow_shrink=request.allow_shrink, deadline=deadline)
            # A node that has just lost the lead must not commit under its successor's epoch.
            secondary = view.role is not Role.PRIMARY
            return await self._commit(progress, request, as_secondary=secondary, deadline=deadline)

    async def pull(
        self, request: PullRequest, progress: ProgressTracker, *, queue: WorkQueue | None, deadline: Deadline
    ) -> PullReply:
        """Merge the head, or replace the database by it; a primary takes in proposals too.

        Errors: PrimaryPullRefusedError, and those of `pull`.
        """
        role = self.roles.view().role
        async with self._syncing(progress, heals=not request.replace, deadline=deadline):
            if request.replace:
                await self._check_replace(role, allowed=request.allow_primary, deadline=deadline)
            if self._bounds.dryrun:
                known = await heads.read(self.lane, deadline=deadline)
                return PullReply(outcome=PullOutcome.DRY_RUN, seq=known.record.seq if known else 0)
            if request.replace:
                return await self._replace(progress, deadline=deadline)
            if role is not Role.PRIMARY or not self.roles.enabled:
                return await pull.pull(self.lane, replace=False, progress=progress, deadline=deadline)
            return await self._pull_as_primary(progress, queue, deadline=deadline)

    async def is_behind(self, *, deadline: Deadline) -> bool:
        """Return whether the head is not the mirror, or there is no database yet."""
        known = await heads.read(self.lane, deadline=deadline)
        if known is None:
            return False
        self.figures.saw_head(known.record.seq)
        return await self._behind(known.record.seq, known.record.sha256)

    async def has_nothing(self, *, deadline: Deadline) -> bool:
        """Return whether this node has no database and the project no snapshot to make one of."""
        exists = await threads.run(self.lane.database.exists)
        return not exists and await heads.read(self.lane, deadline=deadline) is None

    async def catch_up(self, progress: ProgressTracker, *, deadline: Deadline) -> PullReply:
        """Merge the head, whatever the role."""
        async with self._syncing(progress, deadline=deadline):
            if self._bounds.dryrun:
                return PullReply(outcome=PullOutcome.DRY_RUN, seq=self.figures.kept.head_seq)
            return await pull.pull(self.lane, replace=False, progress=progress, deadline=deadline)

    async def lead(self, epoch: int, *, deadline: Deadline) -> None:
        """Commit this node's epoch, as a new primary: the empty commit fences older epochs off."""
        async with self.keeping(deadline):
            await push.commit_epoch(self.lane, epoch=epoch, deadline=deadline)

    async def take_in(self, deliveries: list[Delivery], progress: ProgressTracker, *, deadline: Deadline) -> PullReply:
        """Merge announced proposals, commit once, acknowledge."""
        async with self._syncing(progress, deadline=deadline):
            merged = await self._take_in(deliveries, progress, deadline=deadline)
        return PullReply(outcome=PullOutcome.TOOK_PROPOSALS, proposals=merged, seq=self.figures.kept.head_seq)

    async def take_in_set_aside(
        self, announcement: ProposalAnnouncement, progress: ProgressTracker, *, deadline: Deadline
    ) -> PullReply:
        """Merge one proposal that was in quarantine, whatever it deletes, and push the result.

        Errors: those of `push` for what this primary's own database has lost; nothing was taken in then.
        """
        async with self._syncing(progress, deadline=deadline):
            is_primary = self.roles.view().role is Role.PRIMARY
            if is_primary:
                # Only the proposal may delete without a bound, so this node's own changes are committed first.
                await self._commit(progress, PushRequest(), deadline=deadline)
            await proposals.take_in(self.lane, announcement, allow_shrink=True, progress=progress, deadline=deadline)
            if is_primary:
                await self._commit(progress, PushRequest(allow_shrink=True), deadline=deadline)
        return PullReply(outcome=PullOutcome.TOOK_PROPOSALS, proposals=1, seq=self.figures.kept.head_seq)

    async def presence(self) -> ProjectPresence:
        """Return the project as this node sees it, at once and without asking a server."""
        return presence_of(self.lane, self.roles.view(), await self.figures.current())

    @property
    def busy(self) -> bool:
        """Whether a push or a pull runs here now."""
        return self._turn.locked() and not self._is_auditing

    def patience(self) -> float:
        """Return the seconds that an answer may wait for newer figures."""
        if self.busy:
            return 0.0
        return BRIEFLY if self._is_auditing else AT_ONCE

    async def look_at_head(self, *, deadline: Deadline) -> None:
        """Read the head, for the figures; one that does not come in time stays as it was. Errors: the store's."""
        with suppress(DeadlineExceededError):
            async with deadline.scope("reading the head"):
                known = await heads.read(self.lane, deadline=deadline)
            if known is not None:
                self.figures.saw_head(known.record.seq)

    async def unsynced(self) -> int:
        """Return the number of rows that the canonical memory lacks, counted again if something changed."""
        await self.figures.refresh()
        return self.figures.kept.unsynced

    async def count_unsynced(self, *, deadline: Deadline) -> int:
        """Count the rows that the canonical memory lacks."""
        return await self.figures.count(deadline=deadline)

    async def feed_index(self) -> None:
        """Let the row index take in what changed, if the database can be read now; the next count does it otherwise."""
        try:
            await threads.run(standing.feed, self.lane, deadline=Deadline.after(FEED))
        except MembridgeError as error:
            log.debug("row index not fed", reason=error.message)

    async def audit_slice(self) -> Slice | None:
        """Compare a slice of all rows with the mirror, unless a push or a pull has them; None when there was none.

        One that comes meanwhile waits for the slice to end. Errors: the database's, those of the mirror's file.
        """
        if self._turn.locked():
            return None
        deadline = Deadline.after(AUDIT)
        async with self._turn:
            self._is_auditing = True
            try:
                async with folder_lock(self.lane.folder, deadline=deadline):
                    found = await threads.run(standing.audit_slice, self.lane, self._audit, deadline=deadline)
            finally:
                self._is_auditing = False
        if found is not None and (found.missed or found.is_last):
            self.figures.changed()
        return found

    async def audited(self) -> AuditNote:
        """Return how far the comparison of everything is, and when the last complete one ended."""
        return await threads.run(lambda: self._audit.note)

    async def restore(
        self, record: SnapshotRecord, progress: ProgressTracker, *, limit: int = 0, deadline: Deadline
    ) -> "tuple[Restored, PushReply]":
        """Make the memory what it was at `record` and commit that, as primary.

        The newest snapshot is restored by any node, into its own database: there is nothing to commit. Errors:
        RefusedError, those of `restore` and of `push`.
        """
        from membridge.snapshot import restore  # noqa: PLC0415 - rarely asked for: a node keeps what it loads

        view = self.roles.view()
        async with self._syncing(progress, deadline=deadline):
            self._check_may_write()
            is_primary = view.role is Role.PRIMARY
            if not is_primary:
                known = await heads.read(self.lane, deadline=deadline)
                newest = known is not None and known.record.sha256 == record.sha256
                rules.check_restore(view.role, newest=newest, primary=view.leader)
            # Kept from the first: a refusal by another node's push must leave the database as it is.
            async with self._pushing(deadline) if is_primary else nullcontext():
                epoch = await self._epoch(as_secondary=not is_primary, deadline=deadline)
                restored = await restore.take_back(
                    self.lane, record, epoch=epoch, limit=limit, progress=progress, deadline=deadline
                )
                if not is_primary:
                    return restored, PushReply(outcome=PushOutcome.UNCHANGED, seq=record.seq)
                return restored, await self._commit_kept(progress, PushRequest(), restored=record, deadline=deadline)

    async def restore_backup(
        self, name: str, progress: ProgressTracker, *, limit: int = 0, deadline: Deadline
    ) -> "Reinstated":
        """Make this node's database what it was in the backup `name`, whatever the role. Errors: as `put_back`."""
        from membridge.snapshot import reinstate  # noqa: PLC0415 - rarely asked for: a node keeps what it loads

        async with self._syncing(progress, heals=False, deadline=deadline):
            self._check_may_write()
            await self._stop_worker(progress, deadline=deadline)
            return await reinstate.put_back(self.lane, name, limit=limit, progress=progress, deadline=deadline)

    async def forget(
        self, memories: "Sequence[Found]", progress: ProgressTracker, *, deadline: Deadline
    ) -> tuple[int, Path | None, PushReply]:
        """Forget memories here, then commit that, or propose it. Errors: as `push`, and those of the database."""
        from membridge.snapshot import forget  # noqa: PLC0415 - rarely asked for: a node keeps what it loads

        async with self._syncing(progress, heals=False, deadline=deadline):
            self._check_may_write()
            done, backup = await forget.forget(self.lane, memories, progress=progress, deadline=deadline)
            if not done:
                return done, backup, PushReply(outcome=PushOutcome.UNCHANGED)
            if self.roles.view().role is Role.PRIMARY:
                request = PushRequest(allow_shrink=True)
                return done, backup, await self._commit(progress, request, deadline=deadline)
            return done, backup, await self._propose(progress, allow_shrink=True, deadline=deadline)

    async def recover(self, request: RecoverRequest, progress: ProgressTracker, *, deadline: Deadline) -> RecoverReply:
        """Make the stores agree on a head again, as primary. Errors: RefusedError, and those of `recover`."""
        from membridge.snapshot import recover  # noqa: PLC0415 - rarely asked for: a node keeps what it loads

        view = self.roles.view()
        rules.check_primary(view.role, "recovers a memory", primary=view.leader)
        async with self.keeping(deadline):
            epoch = self.roles.epoch_for_commit() if self.roles.enabled else None
            return await recover.recover(self.lane, request, epoch=epoch, progress=progress, deadline=deadline)

    async def collect_garbage(self, request: GcRequest, progress: ProgressTracker, *, deadline: Deadline) -> GcReply:
        """Delete the snapshots that the policy no longer keeps, as primary. Errors: RefusedError, and those of `gc`."""
        if request.dry_run or self._bounds.dryrun:
            return await gc.collect(self.lane, dry_run=True, progress=progress, deadline=deadline)
        view = self.roles.view()
        rules.check_primary(view.role, "deletes snapshots", primary=view.leader)
        async with self.keeping(deadline):
            return await gc.collect(self.lane, dry_run=False, progress=progress, deadline=deadline)

    @asynccontextmanager
    async def keeping(self, deadline: Deadline) -> AsyncGenerator[None]:
        """Keep every node from committing and from collecting garbage during the body."""
        async with self._alone(deadline), self._pushing(deadline):
            yield

    @asynccontextmanager
    async def _syncing(
        self, progress: ProgressTracker, *, heals: bool = True, deadline: Deadline
    ) -> AsyncGenerator[None]:
        """Run the body alone, after the rollback guard gave a live database its lost rows back."""
        async with self._alone(deadline):
            if heals and not self._bounds.dryrun:
                await rollback_guard.heal(self.lane, progress=progress, deadline=deadline)
            yield
            try:
                await rollback_guard.note(self.lane, anew=not heals, deadline=deadline)
            except MembridgeError as error:
                # What was done is done and must be answered; the next one notes it.
                log.warning("ids not noted", reason=error.message, remedy=error.remedy)

    @asynccontextmanager
    async def _alone(self, deadline: Deadline) -> AsyncGenerator[None]:
        async with deadline.scope("waiting for this node's other push or pull"):
            await self._turn.acquire()
        try:
            async with folder_lock(self.lane.folder, deadline=deadline):
                yield
        finally:
            self._turn.release()
            self.figures.changed()

    def _pushing(self, deadline: Deadline, *, force: bool = False) -> AbstractAsyncContextManager[None]:
        claim = PushClaim(self.lane.project, self.lane.node, self.roles.view().epoch)
        options = replace(self._bounds.push_lease, force=True) if force else self._bounds.push_lease
        return push_lease(self._push_leases, claim, options=options, deadline=deadline)

    async def _commit(
        self, progress: ProgressTracker, request: PushRequest, *, as_secondary: bool = False, deadline: Deadline
    ) -> PushReply:
        """Commit under this node's epoch; `as_secondary`, where the settings allow that, under the head's."""
        async with self._pushing(deadline, force=request.force):
            return await self._commit_kept(progress, request, as_secondary=as_secondary, deadline=deadline)

    async def _commit_kept(
        self,
        progress: ProgressTracker,
        request: PushRequest,
        *,
        as_secondary: bool = False,
        restored: SnapshotRecord | None = None,
        deadline: Deadline,
    ) -> PushReply:
        """Commit as `_commit` does, with the push lock held.

        After a restore the bound on lost rows compares with the `restored` snapshot.
        """
        attempt = 0
        while True:
            attempt += 1
            epoch = await self._epoch(as_secondary=as_secondary, deadline=deadline)
            try:
                shrinks = request.allow_shrink
                reply = await push.push(
                    self.lane,
                    epoch=epoch,
                    allow_shrink=shrinks,
                    restored=restored,
                    progress=progress,
                    deadline=deadline,
                )
            except HeadMovedError:
                if attempt == COMMIT_TRIES:
                    raise
                await asyncio.sleep(pause_after(attempt))
                continue
            if reply.seq:
                self.figures.saw_head(reply.seq)
            return reply

    async def _epoch(self, *, as_secondary: bool, deadline: Deadline) -> int:
        if self.roles.enabled and not as_secondary:
            return self.roles.epoch_for_commit()
        known = await heads.read(self.lane, deadline=deadline)
        return known.record.epoch if known else 0

    async def _propose(self, progress: ProgressTracker, *, allow_shrink: bool, deadline: Deadline) -> PushReply:
        # Fail on a misconfigured store before writing to it.
        known = await heads.read(self.lane, deadline=deadline)
        if known is not None and await threads.run(self.lane.mirror.position) is None:
            # Without a mirror every row would count as one that the others lack.
            await pull.pull(self.lane, replace=False, progress=progress, deadline=deadline)
        queue = await life_of(self._bus, streams.PROPOSALS, deadline=deadline)
        prepared = await proposals.prepare(
            self.lane, queue=queue, allow_shrink=allow_shrink, progress=progress, deadline=deadline
        )
        for one in prepared:
            await proposal_bundles.announce(self._bus, one.announcement, deadline=deadline)
            await proposals.remember(self.lane, one)
        await self.count_unsynced(deadline=deadline)
        if not prepared:
            return PushReply(outcome=PushOutcome.UNCHANGED, rows=0)
        return PushReply(
            outcome=PushOutcome.PROPOSED,
            proposal_id=prepared[-1].announcement.id,
            rows=sum(one.announcement.rows for one in prepared),
            uploaded_bytes=sum(one.announcement.size_bytes for one in prepared),
        )

    async def _check_replace(self, role: Role, *, allowed: bool, deadline: Deadline) -> None:
        if role is not Role.PRIMARY or not self.roles.enabled:
            return
        try:
            await threads.run(database.quick_check, self.lane.database, deadline=deadline)
        except (DatabaseMissingError, DatabaseCorruptError):
            # There is nothing to lose; a damaged one is kept beside the one that takes its place.
            return
        differs = await self._differs_from_head(deadline=deadline)
        allowed = allowed or self._bounds.allow_primary_pull_override
        rules.check_replace(role, differs=differs, allow_primary_pull_override=allowed)

    async def _differs_from_head(self, *, deadline: Deadline) -> bool:
        lane = self.lane
        known = await heads.read(lane, deadline=deadline)
        mirror = lane.mirror.path()
        if known is None or mirror is None or await self._behind(known.record.seq, known.record.sha256):
            return True
        return await threads.run(collect.differs, lane.database, mirror, deadline=deadline)

    async def _behind(self, seq: int, sha256: str) -> bool:
        position = await threads.run(self.lane.mirror.position)
        missing = not await threads.run(self.lane.database.exists)
        return missing or position is None or (position.seq, position.sha256) != (seq, sha256)

    async def _replace(self, progress: ProgressTracker, *, deadline: Deadline) -> PullReply:
        reply = await pull.pull(self.lane, replace=True, progress=progress, deadline=deadline)
        await self._stop_worker(progress, deadline=deadline)
        return reply

    async def _stop_worker(self, progress: ProgressTracker, *, deadline: Deadline) -> None:
        """Stop claude-mem's worker if that is allowed: it caches ids of the replaced memory.

        claude-mem starts it again when it needs it.
        """
        if self._bounds.worker is not None:
            with progress.step("worker"):
                stopped = await worker_process.stop_worker(self._bounds.worker, process_control=True, deadline=deadline)
            log.info("claude-mem's worker stopped" if stopped else "claude-mem's worker does not run")

    def _check_may_write(self) -> None:
        if self._bounds.dryrun:
            raise RefusedError(
                "this node is on a dry run: it only shows what it would do", remedy="unset MEMBRIDGE_AGENT_DRYRUN"
            )

    async def _pull_as_primary(
        self, progress: ProgressTracker, queue: WorkQueue | None, *, deadline: Deadline
    ) -> PullReply:
        pulled = await pull.pull_if_any(self.lane, progress=progress, deadline=deadline)
        # The first primary of a project has nothing to pull yet, but may have proposals waiting.
        reply = pulled or PullReply(outcome=PullOutcome.UNCHANGED)
        deliveries = await queue.fetch(wait=0.5) if queue is not None else []
        if not deliveries:
            return reply
        merged = await self._take_in(deliveries, progress, deadline=deadline)
        return msgspec.structs.replace(
            reply, outcome=PullOutcome.TOOK_PROPOSALS, proposals=merged, seq=max(reply.seq, self.figures.kept.head_seq)
        )

    async def _take_in(self, deliveries: list[Delivery], progress: ProgressTracker, *, deadline: Deadline) -> int:
        merged: list[tuple[Delivery, ProposalAnnouncement]] = []
        for delivery in deliveries:
            announcement = await announcement_of(delivery, self.lane)
            if announcement is None:
                continue
            try:
                await proposals.take_in(self.lane, announcement, progress=progress, deadline=deadline)
            except (CorruptObjectError, ObjectMissingError, ShrinkRefusedError) as error:
                await set_aside(delivery, announcement, self.lane, error)
            else:
                await delivery.in_progress()
                merged.append((delivery, announcement))
        if not merged:
            return 0
        await self._commit(progress, PushRequest(), deadline=deadline)
        for delivery, announcement in merged:
            try:
                await delivery.ack()
                await self.lane.store.delete(announcement.key, deadline=deadline)
            except MembridgeError as error:
                # What was committed is committed: one that comes again changes nothing, and gc deletes what stays.
                log.info("proposal not tidied up", proposal=announcement.id, reason=error.message)
        return len(merged)
