"""What one project answers about its past: its commits, tags, differences, and whether all of it is sound.

Translates between wire structs and the snapshot lane; what changes anything goes through the project, one at a time.
"""

import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec

from membridge.errors import InvalidRequestError
from membridge.node.asked import Asked
from membridge.node.jobs import Jobs, Order
from membridge.node.project import Project
from membridge.snapshot import history, tags, verify
from membridge.snapshot.steps import Steps
from schemas.history import (
    GcReply,
    GcRequest,
    HistoryReply,
    HistoryRequest,
    TagAct,
    TagAction,
    TagsReply,
    VerifyReply,
    VerifyRequest,
)
from schemas.wire import Wire

R = TypeVar("R", bound=Wire)


class Past:
    """The operations on one project's past."""

    def __init__(self, project: Project, jobs: Jobs) -> None:
        self._project, self._jobs = project, jobs

    async def history(self, request: HistoryRequest, asked: Asked) -> HistoryReply:
        """List commits."""
        return await history.read(self._project.lane, request, deadline=asked.deadline)

    async def tag(self, request: TagAction, asked: Asked) -> TagsReply:
        """List, set or delete tags."""
        lane, deadline = self._project.lane, asked.deadline
        if request.action is TagAct.LIST:
            return TagsReply(tags=await tags.listed(lane, deadline=deadline))
        if request.action is TagAct.DELETE:
            return TagsReply(tags=[await tags.delete(lane, request.name, deadline=deadline)])
        name = tags.checked(request.name)
        async with self._project.keeping(deadline):
            record = await history.resolve(lane, request.state, deadline=deadline)
            if record is None:
                raise InvalidRequestError("0 is no snapshot that could be tagged", field="state")
            tag = await tags.put(lane, name, record, move=request.move, deadline=deadline)
        return TagsReply(tags=[tag])

    async def verify(self, request: VerifyRequest, asked: Asked) -> VerifyReply:
        """Verify what is kept, as a job."""
        lane = self._project.lane
        return await self._as_job(
            "verify", asked, lambda steps: verify.verify(lane, request, steps=steps, deadline=asked.deadline)
        )

    async def gc(self, request: GcRequest, asked: Asked) -> GcReply:
        """Delete what is not kept, as a job."""
        project = self._project
        return await self._as_job(
            "gc", asked, lambda steps: project.collect_garbage(request, steps, deadline=asked.deadline)
        )

    async def _as_job(self, kind: str, asked: Asked, act: Callable[[Steps], Awaitable[R]]) -> R:
        began, ids = time.monotonic(), list[str]()

        async def run(steps: Steps, job: str) -> R:
            ids.append(job)
            return await act(steps)

        reply = await self._jobs.run(Order(kind, asked.by), run, asked.listener)
        return msgspec.structs.replace(reply, seconds=round(time.monotonic() - began, 3), job_id=ids[0])
