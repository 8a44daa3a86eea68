"""A project that this node cannot open now: it answers status, doctor and jobs, and rejects the rest with the reason.

Meanwhile the node tries to open the project again.
"""

from collections.abc import Awaitable, Callable
from typing import NoReturn

from membridge import __version__
from membridge.bus.connection import Bus
from membridge.bus.service import Call, Endpoint
from membridge.errors import MembridgeError, UnavailableError
from membridge.node.examination import Examination
from membridge.node.jobs import LISTED, Jobs
from membridge.node.operations import QUEUE
from membridge.node.reached import Reached, this_process
from membridge.objectstore.protocol import ObjectStore
from membridge.settings import ProjectConfig, Settings
from membridge.system.files import meaning
from schemas import subjects
from schemas.leadership import Role
from schemas.node import DoctorReply, JobsReply, ProjectPresence, StatusReply
from schemas.wire import Wire


class NotServedError(UnavailableError):
    """A project that this node cannot open now; it is tried again."""

    default_remedy = "run `membridge doctor`; the node tries again by itself"


class UnservedProject:
    """One project while it is not served. `failure` is the newest reason."""

    def __init__(self, settings: Settings, config: ProjectConfig) -> None:
        self._settings, self._config = settings, config
        self.failure: MembridgeError = NotServedError(
            f"project {config.name} is still being opened", remedy="try again"
        )

    def failed(self, failure: Exception) -> bool:
        """Note why the project is not served; return whether that is news."""
        before, self.failure = self.failure, _told(self._config.name, failure)
        return before.message != self.failure.message

    async def presence(self) -> ProjectPresence:
        """Return the project as this node sees it: not served, and why."""
        config = self._config
        return ProjectPresence(
            project=config.id,
            name=config.name,
            role=Role.NONE,
            database=str(config.database),
            error=self.failure.message[:4_096],
        )

    def endpoints(self, bus: Bus, store: ObjectStore) -> list[Endpoint]:
        """Return the endpoints of this node for the project."""
        project, node = self._config.id, self._settings.node.id
        handlers = {
            subjects.STATUS.name: self._status,
            subjects.DOCTOR.name: self._doctor(bus, store),
            subjects.JOBS.name: self._jobs(bus),
        }
        return [
            Endpoint(
                operation=operation,
                subject=operation.at(project=project, node=node),
                handler=handlers.get(operation.name, self._refuse),
                queue=QUEUE,
            )
            for operation in subjects.NODE_OPERATIONS
        ]

    async def _status(self, request: Wire, call: Call) -> StatusReply:
        del request, call
        return StatusReply(
            node=self._settings.node.id,
            version=__version__,
            project=await self.presence(),
            last_error=self.failure.message[:4_096],
        )

    def _doctor(self, bus: Bus, store: ObjectStore) -> Callable[[Wire, Call], Awaitable[DoctorReply]]:
        async def examine(request: Wire, call: Call) -> DoctorReply:
            del request
            reached = Reached(bus, store, project=self.failure, daemon=this_process)
            return await Examination(self._settings, self._config, reached).make(deadline=call.deadline)

        return examine

    def _jobs(self, bus: Bus) -> Callable[[Wire, Call], Awaitable[JobsReply]]:
        async def listed(request: Wire, call: Call) -> JobsReply:
            del request
            jobs = Jobs(bus, self._config.id, self._settings.node.id)
            return JobsReply(jobs=await jobs.listed(limit=LISTED, deadline=call.deadline))

        return listed

    async def _refuse(self, request: Wire, call: Call) -> NoReturn:
        del request, call
        raise self.failure


def _told(name: str, failure: Exception) -> MembridgeError:
    """Return why the project `name` is not served, as an error that names the reason and what to do."""
    if isinstance(failure, OSError):
        failure = meaning(failure)
    if isinstance(failure, MembridgeError):
        reason, remedy = failure.message, failure.remedy or None
    else:
        reason, remedy = f"unexpected: {type(failure).__name__}: {failure}", None
    return NotServedError(f"project {name} is not served: {reason}", remedy=remedy)
