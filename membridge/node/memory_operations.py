"""The operations on single memories of one project: search them, read one, forget some.

Translates between wire structs and the project; decides nothing.
"""

from collections import Counter
from typing import TYPE_CHECKING

from membridge.aio import threads
from membridge.aio.deadline import Deadline
from membridge.commits import heads
from membridge.commits.progress import ProgressTracker
from membridge.errors import InvalidRequestError, NotFoundError
from membridge.node.jobs import Jobs, RequestContext
from membridge.node.project import Project
from schemas.memories import (
    MOST,
    ForgetReply,
    ForgetRequest,
    MemoriesReply,
    MemoriesRequest,
    MemoryFilter,
    MemoryReply,
    MemoryRequest,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from membridge.claudemem.search import Found

#: Memories that an answer about forgetting lists.
LISTED = 100


class MemoryOperations:
    """The operations on the memories of one project on this node."""

    def __init__(self, project: Project, jobs: Jobs) -> None:
        self._project, self._jobs = project, jobs

    async def search(self, request: MemoriesRequest, context: RequestContext) -> MemoriesReply:
        """List memories of a filter."""
        from membridge.claudemem import search  # noqa: PLC0415 - loaded when it is asked for: a node keeps what it loads for months

        return await threads.run(search.search, self._project.lane.database, request, deadline=context.deadline)

    async def one(self, request: MemoryRequest, context: RequestContext) -> MemoryReply:
        """Return a memory."""
        from membridge.claudemem import search  # noqa: PLC0415 - loaded when it is asked for: a node keeps what it loads for months

        return await threads.run(search.read, self._project.lane.database, request.ref, deadline=context.deadline)

    async def forget(self, request: ForgetRequest, context: RequestContext) -> ForgetReply:
        """Forget memories as a job, or say which it would forget."""
        deadline = self._project.deadline().sooner(context.deadline.remaining())
        return await self._jobs.answer("forget", context, lambda progress: self._forget(request, progress, deadline))

    async def _forget(self, request: ForgetRequest, progress: ProgressTracker, deadline: Deadline) -> ForgetReply:
        lane = self._project.lane
        found = await self._chosen(request, deadline)
        known = await heads.read(lane, deadline=deadline)
        reply = ForgetReply(
            counts=dict(Counter(one.memory.kind.value for one in found)),
            memories=[one.memory for one in found[:LISTED]],
            before_seq=known.record.seq if known is not None else 0,
        )
        if not request.apply:
            return reply
        forgotten, backup, pushed = await self._project.forget(found, progress, deadline=deadline)
        return ForgetReply(
            applied=True,
            counts=reply.counts,
            memories=reply.memories,
            before_seq=reply.before_seq,
            forgotten=forgotten,
            outcome=pushed.outcome,
            seq=pushed.seq,
            backup=str(backup) if backup is not None else None,
        )

    async def _chosen(self, request: ForgetRequest, deadline: Deadline) -> "Sequence[Found]":
        """Return the memories that are meant. Errors: InvalidRequestError, NotFoundError for a name that is none."""
        from membridge.claudemem import search  # noqa: PLC0415 - loaded when it is asked for: a node keeps what it loads for months

        database = self._project.lane.database
        if request.refs:
            found = await threads.run(search.named, database, request.refs, deadline=deadline)
            if missing := set(request.refs) - {one.memory.ref for one in found}:
                raise NotFoundError(f"there is no memory {min(missing)}", remedy="search for it", field="refs")
            return found
        if request.filter is None or request.filter == MemoryFilter():
            raise InvalidRequestError(
                "nothing says which memories to forget", remedy="send `refs`, or a `filter` with a condition",
                field="filter",
            )  # fmt: skip
        found = await threads.run(search.select, database, request.filter, limit=MOST + 1, deadline=deadline)
        if len(found) > MOST:
            raise InvalidRequestError(
                f"more than {MOST:,} memories match", remedy="narrow the filter, by time for instance", field="filter"
            )
        return found
