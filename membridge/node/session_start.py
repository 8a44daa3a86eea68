"""Answers a session start: brings the newest memory into this node's database first, then says how fresh it is."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from membridge.aio import threads
from membridge.aio.deadline import Deadline
from membridge.claudemem import search, worker_process
from membridge.commits import heads
from membridge.errors import MembridgeError, UnknownProjectError
from membridge.hooks.context_line import TITLES, Freshness, line_of, with_titles
from membridge.hooks.event_file import HookEvent
from membridge.hooks.session_answer import Answering
from membridge.node import registry
from membridge.node.projects_part import Hosted, ProjectsPart
from membridge.node.session_events import hosted
from membridge.settings import ProjectConfig, Settings
from membridge.settings.hooks import HookContext
from membridge.system.logging import get_logger
from schemas.memories import MemoriesRequest, MemoryKind

if TYPE_CHECKING:
    from schemas.identity import ProjectId
    from schemas.snapshot import SnapshotRecord

log = get_logger("membridge.hooks")

#: The share of the wait after which the work ends with what there is, and after which the answer is sent in any case.
WORK, ANSWER = 0.85, 0.92
#: Seconds that claude-mem's worker may take to answer, and the titles to be read.
WORKER, READ = 0.5, 1.0


def answering(settings: Settings, hosts: Sequence[ProjectsPart]) -> Answering:
    """Return what answers the session starts of this node."""
    wait = settings.hooks.wait_seconds

    def late() -> str:
        if settings.hooks.context is HookContext.OFF:
            return ""
        return f"Membridge: this memory may be out of date: this machine did not look for newer one in {wait:g} s."

    return Answering(SessionStarts(settings, hosts).answer, late, patience=wait * ANSWER)


class SessionStarts:
    """Answers the session starts of this node."""

    def __init__(self, settings: Settings, hosts: Sequence[ProjectsPart]) -> None:
        self._settings, self._hosts = settings, hosts
        #: The newest snapshot that was seen of each project: what to say while NATS is away.
        self._seen: dict[ProjectId, SnapshotRecord] = {}

    async def answer(self, event: HookEvent) -> str:
        """Return what to say, once the newest memory is here or the time is up."""
        wanted, deadline = self._settings.hooks, Deadline.after(self._settings.hooks.wait_seconds * WORK)
        try:
            config = await threads.run(registry.of_session, self._settings, event.project, event.folder)
        except UnknownProjectError as error:
            log.info("session of another project", reason=error.message)
            return ""
        freshness = await self._renewed(config, deadline)
        if freshness.problem:
            log.warning("session starts without the newest memory", project=config.name, reason=freshness.problem)
        if wanted.context is HookContext.OFF:
            return ""
        line = line_of(freshness)
        if wanted.context is HookContext.WHEN_EMPTY:
            line = with_titles(line, await self._titles(config, event.folder, deadline))
        return line

    async def _renewed(self, config: ProjectConfig, deadline: Deadline) -> Freshness:
        problem, here = "", None
        try:
            here = hosted(self._hosts, config.id)
            await self._catch_up(here, deadline)
        except MembridgeError as error:
            last = here.sync.last_error if here is not None and here.sync is not None else None
            problem = last or error.message
        seq = 0
        if here is not None and here.project is not None:
            position = await threads.run(here.project.lane.mirror.position)
            seq = position.seq if position is not None else 0
        return Freshness(config.name, seq, self._seen.get(config.id), problem)

    async def _catch_up(self, here: Hosted, deadline: Deadline) -> None:
        if here.project is None or here.sync is None:
            raise here.failure
        # A primary commits what it takes in: its head is looked at afterwards.
        if here.intake is not None:
            await here.intake.catch_up(deadline=deadline)
        await here.sync.catch_up(deadline=deadline)
        async with deadline.scope("reading the head"):
            known = await heads.read(here.project.lane, deadline=deadline)
        if known is not None:
            self._seen[here.project.lane.project] = known.record

    async def _titles(self, config: ProjectConfig, folder: str, deadline: Deadline) -> list[str]:
        """Return the newest titles of the session's folder if claude-mem's worker is not there to bring them."""
        data = self._settings.node.claude_mem_dir
        try:
            worker = await worker_process.find_worker(data, deadline=deadline.sooner(WORKER))
            if worker is not None and worker.healthy:
                return []
            wanted = MemoriesRequest(kind=MemoryKind.OBSERVATION, project=Path(folder).name, limit=TITLES)
            found = await threads.run(search.search, config.database, wanted, deadline=deadline.sooner(READ))
        except MembridgeError as error:
            log.info("titles not read", project=config.name, reason=error.message)
            return []
        return [memory.title for memory in found.memories]
