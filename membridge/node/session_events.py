"""Takes session events from the spool: stores each in its project's stream of events, then starts a push if it is due.

After a failure, and at the start, the last stored event is asked for: the server forgets ids after two minutes, and an
answer may have been lost before that.
"""

from collections.abc import Sequence

from membridge.aio.deadline import Deadline
from membridge.bus import publisher
from membridge.errors import BusUnavailableError
from membridge.hooks.event_file import HookEvent
from membridge.hooks.reader import Taken
from membridge.node import registry
from membridge.node.projects_part import Hosted, ProjectsPart
from membridge.settings import Settings
from schemas.events import SessionEvent, SessionMoment
from schemas.identity import ProjectId

#: Seconds that storing an event may take.
STORE_DEADLINE = 5.0
#: Moments after which what the session learned is pushed or proposed.
PUSHED_AFTER = frozenset({SessionMoment.STOPPED, SessionMoment.ENDED})


def hosted(hosts: Sequence[ProjectsPart], project: ProjectId) -> Hosted:
    """Return how a project of this node is hosted. Raises BusUnavailableError while its account cannot be opened."""
    for host in hosts:
        if (found := host.hosted(project)) is not None:
            return found
    raise BusUnavailableError(
        f"project {project} is not connected to NATS now", remedy="run `membridge doctor`, which says why"
    )


class SessionEvents:
    """The sink of this node's session events."""

    def __init__(self, settings: Settings, hosts: Sequence[ProjectsPart]) -> None:
        self._settings, self._hosts = settings, hosts
        #: Projects whose last event is known to be stored or not.
        self._settled: set[ProjectId] = set()

    def project_of(self, event: HookEvent) -> ProjectId:
        """Return the project of an event. Raises UnknownProjectError. Blocking."""
        return registry.of_session(self._settings, event.project, event.folder).id

    def reaches(self) -> int:
        """Return how many projects there are to publish for."""
        return max(1, sum(host.count() for host in self._hosts))

    async def take(self, taken: Taken, secret: bytes) -> None:
        """Store the event, once, and have its project pushed or proposed after a stop or an end. Errors: the bus's."""
        project = hosted(self._hosts, taken.project)
        event = taken.event.told(
            project=taken.project,
            node=self._settings.node.id,
            at=taken.at,
            secret=secret,
            include_prompt=self._settings.hooks.include_prompts,
        )
        deadline = Deadline.after(STORE_DEADLINE)
        if taken.project in self._settled or not await _is_last(project, event, deadline):
            self._settled.discard(taken.project)
            await publisher.store(project.bus, event, message_id=event.id, deadline=deadline)
        self._settled.add(taken.project)
        if event.moment in PUSHED_AFTER and project.sync is not None:
            project.sync.send_soon()


async def _is_last(project: Hosted, event: SessionEvent, deadline: Deadline) -> bool:
    last = await publisher.last(project.bus, event, deadline=deadline)
    return isinstance(last, SessionEvent) and last.id == event.id
