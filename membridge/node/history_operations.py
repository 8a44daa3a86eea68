"""The operations on a project's history: list, tag, verify, diff, extract, restore, gc, recover.

Translates between wire structs and the lane; operations that change anything go through the project, one at a time.
"""

import msgspec

from membridge.aio import threads
from membridge.aio.deadline import Deadline
from membridge.claudemem.holders import holders
from membridge.commits import heads, history, tags
from membridge.commits.progress import ProgressTracker
from membridge.errors import InvalidRequestError
from membridge.merge.compare import Comparison
from membridge.node import rules
from membridge.node.jobs import Jobs, RequestContext
from membridge.node.project import Project
from schemas.commits import (
    MOST_PART,
    DiffReply,
    DiffRequest,
    ExtractReply,
    ExtractRequest,
    GcReply,
    GcRequest,
    HistoryReply,
    HistoryRequest,
    ReadExtractedReply,
    ReadExtractedRequest,
    RecoverReply,
    RecoverRequest,
    RestoreBackupReply,
    RestoreBackupRequest,
    RestoreReply,
    RestoreRequest,
    TagAct,
    TagAction,
    TagsReply,
    VerifyReply,
    VerifyRequest,
)
from schemas.leadership import Role
from schemas.snapshot import PushOutcome, SnapshotRecord


class HistoryOperations:
    """The operations on one project's history."""

    def __init__(self, project: Project, jobs: Jobs) -> None:
        self._project, self._jobs = project, jobs

    async def history(self, request: HistoryRequest, context: RequestContext) -> HistoryReply:
        """List commits."""
        return await history.read(self._project.lane, request, deadline=context.deadline)

    async def tag(self, request: TagAction, context: RequestContext) -> TagsReply:
        """List, set or delete tags."""
        lane, deadline = self._project.lane, context.deadline
        if request.action is TagAct.LIST:
            return TagsReply(tags=await tags.listed(lane, deadline=deadline))
        if request.action is TagAct.DELETE:
            return TagsReply(tags=[await tags.delete(lane, request.name, deadline=deadline)])
        name = tags.checked(request.name)
        async with self._project.keeping(deadline):
            record = await history.resolve(lane, request.state, deadline=deadline)
            if record is None:
                raise InvalidRequestError(
                    "there is no snapshot 0 to tag", remedy="run `membridge history`", field="state"
                )
            tag = await tags.put(lane, name, record, move=request.move, deadline=deadline)
        return TagsReply(tags=[tag])

    async def verify(self, request: VerifyRequest, context: RequestContext) -> VerifyReply:
        """Verify the kept snapshots, as a job."""
        from membridge.commits import verify  # noqa: PLC0415 - loaded when it is asked for: a node keeps what it loads for months

        lane = self._project.lane
        return await self._jobs.answer(
            "verify",
            context,
            lambda progress: verify.verify(lane, request, progress=progress, deadline=context.deadline),
        )

    async def diff(self, request: DiffRequest, context: RequestContext) -> DiffReply:
        """Compare two states, as a job."""
        return await self._jobs.answer(
            "diff", context, lambda progress: self._diff(request, progress, context.deadline)
        )

    async def extract(self, request: ExtractRequest, context: RequestContext) -> ExtractReply:
        """Make a file of a state, as a job."""
        return await self._jobs.answer(
            "extract", context, lambda progress: self._extract(request, progress, context.deadline)
        )

    async def read_extracted(self, request: ReadExtractedRequest, context: RequestContext) -> ReadExtractedReply:
        """Return a part of the file of an extracted state. Raises NotFoundError."""
        del context
        replica = self._project.lane
        from membridge.commits import materialize  # noqa: PLC0415 - rarely asked for: a node keeps what it loads

        body, size = await threads.run(materialize.part, replica, request.name, request.offset, MOST_PART)
        return ReadExtractedReply(body=body, size_bytes=size)

    async def restore(self, request: RestoreRequest, context: RequestContext) -> RestoreReply:
        """Say what restoring a state would change, or do it, as a job."""
        return await self._jobs.answer(
            "restore", context, lambda progress: self._restore(request, progress, context.deadline)
        )

    async def restore_backup(self, request: RestoreBackupRequest, context: RequestContext) -> RestoreBackupReply:
        """Say what putting a backup back would change, or do it, as a job."""
        return await self._jobs.answer(
            "restore_backup", context, lambda progress: self._restore_backup(request, progress, context.deadline)
        )

    async def gc(self, request: GcRequest, context: RequestContext) -> GcReply:
        """Delete snapshots that are no longer kept, as a job."""
        project = self._project
        return await self._jobs.answer(
            "gc", context, lambda progress: project.collect_garbage(request, progress, deadline=context.deadline)
        )

    async def recover(self, request: RecoverRequest, context: RequestContext) -> RecoverReply:
        """Rebuild a lost head, as a job."""
        project = self._project
        return await self._jobs.answer(
            "recover", context, lambda progress: project.recover(request, progress, deadline=context.deadline)
        )

    async def _diff(self, request: DiffRequest, progress: ProgressTracker, deadline: Deadline) -> DiffReply:
        from membridge.commits.diff import diff  # noqa: PLC0415 - loaded when it is asked for: a node keeps what it loads for months

        lane = self._project.lane
        older = await history.resolve(lane, request.older, deadline=deadline)
        newer = await history.resolve(lane, request.newer, deadline=deadline)
        found = await diff(lane, older, newer, limit=request.limit, progress=progress, deadline=deadline)
        return DiffReply(
            older_seq=older.seq if older else 0,
            newer_seq=newer.seq if newer else 0,
            tables=found.tables(),
            rows=found.rows,
            listed_all=found.listed_all,
        )

    async def _extract(self, request: ExtractRequest, progress: ProgressTracker, deadline: Deadline) -> ExtractReply:
        record = await self._state(request.state, deadline)
        from membridge.commits import materialize  # noqa: PLC0415 - rarely asked for: a node keeps what it loads

        path = await materialize.extract(self._project.lane, record, progress=progress, deadline=deadline)
        return ExtractReply(
            path=str(path),
            name=path.name,
            seq=record.seq,
            created_at=record.created_at,
            rows=sum(record.rows.values()),
            size_bytes=(await threads.run(path.stat)).st_size,
        )

    async def _restore(self, request: RestoreRequest, progress: ProgressTracker, deadline: Deadline) -> RestoreReply:
        from membridge.snapshot import restore  # noqa: PLC0415 - rarely asked for: a node keeps what it loads

        lane, limit = self._project.lane, request.limit
        record = await self._state(request.state, deadline)
        known = await heads.read(lane, deadline=deadline)
        head = known.record if known else record
        if not request.apply:
            # What a person is asked about is what is done then: a secondary restores the newest snapshot, for itself.
            view = self._project.roles.view()
            newest = known is not None and known.record.sha256 == record.sha256
            rules.check_restore(view.role, newest=newest, primary=view.leader)
            seen = await restore.preview(lane, record, head, limit=limit, progress=progress, deadline=deadline)
            commits = seen.commits and view.role is Role.PRIMARY
            return _restored(RestoreReply(commits=commits), record, head, seen.changes)
        done, pushed = await self._project.restore(record, progress, limit=limit, deadline=deadline)
        report = done.report
        reply = RestoreReply(
            applied=True,
            commits=pushed.outcome is PushOutcome.COMMITTED,
            inserted=report.inserted,
            updated=report.updated,
            deleted=report.deleted,
            conflicts=report.conflicts,
            backup=str(done.backup) if done.backup else None,
        )
        return msgspec.structs.replace(_restored(reply, record, head, done.changes), seq=pushed.seq or head.seq)

    async def _restore_backup(
        self, request: RestoreBackupRequest, progress: ProgressTracker, deadline: Deadline
    ) -> RestoreBackupReply:
        from membridge.snapshot import reinstate  # noqa: PLC0415 - rarely asked for: a node keeps what it loads

        lane, limit = self._project.lane, request.limit
        if request.apply:
            done = await self._project.restore_backup(request.backup, progress, limit=limit, deadline=deadline)
        else:
            done = await reinstate.preview(lane, request.backup, limit=limit, progress=progress, deadline=deadline)
        return RestoreBackupReply(
            applied=request.apply,
            backup=done.backup,
            created_at=done.created_at,
            tables=done.changes.tables(),
            rows=done.changes.rows,
            listed_all=done.changes.listed_all,
            writes=done.writes,
            damage=done.damage,
            saved=str(done.saved) if done.saved else None,
            set_aside=str(done.aside) if done.aside else None,
            open_in=[str(holder) for holder in await threads.run(holders, lane.database)],
        )

    async def _state(self, name: str, deadline: Deadline) -> SnapshotRecord:
        record = await history.resolve(self._project.lane, name, deadline=deadline)
        if record is None:
            raise InvalidRequestError(
                "there is no snapshot 0 to restore", remedy="run `membridge history`", field="state"
            )
        return record


def _restored(reply: RestoreReply, record: SnapshotRecord, head: SnapshotRecord, changes: Comparison) -> RestoreReply:
    """Return `reply` with the two snapshots and what changed between them in the live database."""
    tables = changes.tables()
    return msgspec.structs.replace(
        reply,
        state_seq=record.seq,
        head_seq=head.seq,
        seq=head.seq,
        tables=tables,
        rows=changes.rows,
        listed_all=changes.listed_all,
        unsynced=sum(table.kept for table in tables),
    )
