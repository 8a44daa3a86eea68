"""The operations of one project: a method for each, and the endpoints they answer on. The command line uses them too.

Translates between wire structs and the project; decides nothing.
"""

import os
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from membridge import __version__
from membridge.aio import threads
from membridge.aio.deadline import Deadline
from membridge.bus.service import Call, Endpoint
from membridge.bus.streams import WorkQueue
from membridge.errors import InvalidRequestError, NotFoundError
from membridge.hooks.figures import SpoolFigures, figures
from membridge.node.examination import Examination
from membridge.node.history_operations import HistoryOperations
from membridge.node.jobs import LISTED, Jobs, RequestContext
from membridge.node.memory_operations import MemoryOperations
from membridge.node.project import BRIEFLY, Project
from membridge.node.unsynced_operation import unsynced
from membridge.snapshot import backups
from membridge.system import clock
from membridge.system.logging import get_logger
from schemas import subjects
from schemas.node import DoctorReply, Empty, Job, JobRequest, JobsReply, StatusReply
from schemas.proposal import (
    ConflictsReply,
    ProposalAnnouncement,
    QuarantineAction,
    Quarantined,
    QuarantineReply,
    UnsyncedReply,
    UnsyncedRequest,
)
from schemas.snapshot import BackupsReply, PullReply, PullRequest, PushReply, PushRequest
from schemas.subjects import Operation
from schemas.wire import Wire, decode

if TYPE_CHECKING:
    from membridge.hooks.paths import HookPaths

Q = TypeVar("Q", bound=Wire)
R = TypeVar("R", bound=Wire)
Handler = Callable[..., Awaitable[Wire]]

#: The group that answers for one node. While a project is opened anew, what refused requests and what serves them
#: overlap for a moment; each request reaches one of the two.
QUEUE = "node"

log = get_logger("membridge.node")


class Operations:
    """The operations of one project on this node."""

    def __init__(self, project: Project, jobs: Jobs, queue: WorkQueue | None, doctor: Examination) -> None:
        self._project, self._jobs, self._queue, self._doctor = project, jobs, queue, doctor
        self._history = HistoryOperations(project, jobs)
        self._memories = MemoryOperations(project, jobs)
        self._began = time.monotonic()
        self.last_error: Callable[[], str | None] = lambda: None
        #: Whether the node pushes and pulls by itself.
        self.by_itself = False
        #: Where Claude Code's hooks leave their events; None where that is not looked at.
        self.hooks: HookPaths | None = None
        #: Whether this process is the daemon.
        self.running = True

    async def answer(self, operation: Operation[Q, R], request: Wire, context: RequestContext) -> R:
        """Return the reply of `operation`; raise what the operation raises."""
        handlers: dict[str, Handler] = {
            subjects.STATUS.name: self.status,
            subjects.PUSH.name: self.push,
            subjects.PULL.name: self.pull,
            subjects.DOCTOR.name: self.doctor,
            subjects.HISTORY.name: self._history.history,
            subjects.VERIFY.name: self._history.verify,
            subjects.TAG.name: self._history.tag,
            subjects.DIFF.name: self._history.diff,
            subjects.EXTRACT.name: self._history.extract,
            subjects.READ_EXTRACTED.name: self._history.read_extracted,
            subjects.RESTORE.name: self._history.restore,
            subjects.RESTORE_BACKUP.name: self._history.restore_backup,
            subjects.GC.name: self._history.gc,
            subjects.RECOVER.name: self._history.recover,
            subjects.BACKUPS.name: self.backups,
            subjects.CONFLICTS.name: self.conflicts,
            subjects.QUARANTINE.name: self.quarantine,
            subjects.UNSYNCED.name: self.unsynced,
            subjects.MEMORIES.name: self._memories.search,
            subjects.MEMORY.name: self._memories.one,
            subjects.FORGET.name: self._memories.forget,
            subjects.JOBS.name: self.jobs,
            subjects.JOB_BY_ID.name: self.job,
        }
        handler = handlers.get(operation.name)
        if handler is None:
            raise InvalidRequestError(f"{operation.name} is not an operation of a project")
        reply = await handler(request, context)
        if not isinstance(reply, operation.reply):
            raise TypeError(f"{operation.name} answered {type(reply).__name__}")
        return reply

    def endpoints(self) -> list[Endpoint]:
        """Return the endpoints of the project that name this node."""
        lane = self._project.lane
        return [
            Endpoint(
                operation=operation,
                subject=operation.at(project=lane.project, node=lane.node),
                handler=partial(self._handle, operation),
                queue=QUEUE,
            )
            for operation in subjects.NODE_OPERATIONS
        ]

    def primary_endpoints(self) -> list[Endpoint]:
        """Return the endpoints on which only the primary of the project answers."""
        return [
            Endpoint(
                operation=operation.to_primary(),
                subject=operation.to_primary().at(project=self._project.lane.project),
                handler=partial(self._handle, operation),
            )
            for operation in subjects.NODE_OPERATIONS
        ]

    async def _handle(self, operation: Operation[Wire, Wire], request: Wire, call: Call) -> Wire:
        return await self.answer(operation, request, RequestContext(by=call.by, deadline=call.deadline))

    async def status(self, request: Empty, context: RequestContext) -> StatusReply:
        """Say how the project stands: as of now if that can be read at once, else as it was last, with the time."""
        del request
        project, deadline = self._project, context.deadline
        if self.running:
            deadline = deadline.sooner(max(project.patience(), BRIEFLY))
        await project.look_at_head(deadline=deadline)
        events = await threads.run(figures, self.hooks) if self.hooks is not None else SpoolFigures()
        return StatusReply(
            node=project.lane.node,
            version=__version__,
            project=await project.presence(),
            answered_at=clock.stamp(),
            primary=project.roles.view().leader,
            rss_bytes=resident_bytes(),
            uptime_seconds=round(time.monotonic() - self._began, 3),
            last_error=self.last_error(),
            running=self.running,
            events_waiting=events.waiting,
            events_dropped=events.dropped,
        )

    async def push(self, request: PushRequest, context: RequestContext) -> PushReply:
        """Push as a job."""
        overrides = {"FORCE_PUSH": request.force, "ALLOW_SECONDARY_PUSH": request.allow_secondary}
        self._note_overrides("push", overrides, context)
        return await self._jobs.answer(
            "push",
            context,
            lambda progress: self._project.push(request, progress, deadline=self._within(context)),
        )

    async def pull(self, request: PullRequest, context: RequestContext) -> PullReply:
        """Pull as a job; a secondary then offers what the canonical memory lacks."""
        self._note_overrides("pull", {"ALLOW_PRIMARY_PULL_OVERRIDE": request.allow_primary}, context)
        return await self._jobs.answer(
            "pull",
            context,
            lambda progress: self._project.pull(request, progress, queue=self._queue, deadline=self._within(context)),
        )

    def _within(self, context: RequestContext) -> Deadline:
        """Return when a job that was asked for must end: as the caller waits, and as the settings bound it."""
        return min(context.deadline, self._project.deadline(), key=lambda deadline: deadline.at)

    def _note_overrides(self, kind: str, overrides: Mapping[str, bool], context: RequestContext) -> None:
        """Write into the log which safety bounds a request lifts, and who asked."""
        for name, is_set in overrides.items():
            if is_set:
                log.warning(
                    "override with a request", project=self._project.lane.name, kind=kind, override=name, by=context.by
                )

    async def doctor(self, request: Empty, context: RequestContext) -> DoctorReply:
        """Examine everything this project needs."""
        del request
        return await self._doctor.make(deadline=context.deadline)

    async def backups(self, request: Empty, context: RequestContext) -> BackupsReply:
        """List the backups."""
        del request, context
        return BackupsReply(backups=await threads.run(backups.listed, self._project.lane))

    async def conflicts(self, request: Empty, context: RequestContext) -> ConflictsReply:
        """List the newest conflicts."""
        del request, context
        return ConflictsReply(conflicts=await threads.run(self._project.lane.journal.conflicts, limit=LISTED))

    async def quarantine(self, request: QuarantineAction, context: RequestContext) -> QuarantineReply:
        """List, retry or drop what was set aside, and return the items it concerned.

        A proposal that is tried again is merged and committed without the shrink bound: a person looked at it. A row
        comes back by itself with the next pull once it fits; trying it again means dropping the note.
        Errors: InvalidRequestError without an id, NotFoundError for one that is not there, and what the merge raises.
        """
        journal = self._project.lane.journal
        items = await threads.run(journal.quarantined)
        if request.action == "list":
            return QuarantineReply(items=items)
        item = _chosen(items, request)
        if request.action == "retry" and item.kind == "proposal":
            announcement = decode(await threads.run(journal.payload, item.id), ProposalAnnouncement)
            await self._jobs.run(
                "quarantine",
                lambda progress: self._project.take_in_set_aside(announcement, progress, deadline=context.deadline),
                by=context.by,
            )
        await threads.run(journal.drop, item.id)
        return QuarantineReply(items=[item])

    async def unsynced(self, request: UnsyncedRequest, context: RequestContext) -> UnsyncedReply:
        """List the rows that the canonical memory lacks, and say what they wait for."""
        return await unsynced(
            self._project, request, by_itself=self.by_itself, last_error=self.last_error(), deadline=context.deadline
        )

    async def jobs(self, request: Empty, context: RequestContext) -> JobsReply:
        """List the newest jobs."""
        del request
        return JobsReply(jobs=await self._jobs.listed(limit=LISTED, deadline=context.deadline))

    async def job(self, request: JobRequest, context: RequestContext) -> Job:
        """Return a job, whichever node it ran on."""
        return await self._jobs.one(request.id, deadline=context.deadline)


def _chosen(items: list[Quarantined], request: QuarantineAction) -> Quarantined:
    if request.id is None:
        raise InvalidRequestError(
            f"{request.action} needs the id of an item", remedy="run `membridge quarantine`", field="id"
        )
    for item in items:
        if item.id == request.id:
            return item
    raise NotFoundError(f"nothing in quarantine has the id {request.id}", remedy="run `membridge quarantine`")


def resident_bytes() -> int:
    """Return this process's resident memory; its peak where the system does not tell the present."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123 - not a file of ours
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        import resource  # noqa: PLC0415 - where there is no /proc

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
