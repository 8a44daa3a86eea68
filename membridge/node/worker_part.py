"""Builds this node's LLM worker, if the settings enable it.

Task events wait in a bounded queue; when it is full new ones are dropped, so that a chatty program neither slows a
task nor fills the server.
"""

from collections.abc import Sequence
from pathlib import Path

import msgspec

from membridge.aio import threads
from membridge.aio.lifecycle import Part
from membridge.bus.connection import Bus
from membridge.bus.publisher import Publisher
from membridge.errors import SettingsError
from membridge.node.projects_part import ProjectsPart
from membridge.settings import Settings
from membridge.system import clock
from membridge.system.logging import get_logger
from membridge.worker import attempt
from membridge.worker.attempt import Claude
from membridge.worker.context import Sources
from membridge.worker.presence import PresencePublisher
from membridge.worker.unreturned import Unreturned
from membridge.worker.worker import Worker
from schemas import subjects
from schemas.identity import NodeId
from schemas.leases import Order
from schemas.node import NodePresence
from schemas.task_events import TaskEvent, TaskEventKind
from schemas.wire import encode, storable
from schemas.workers import Capabilities

log = get_logger("membridge.worker")


class EventPublisher:
    """Publishes what happens to tasks, in the order in which it happened."""

    def __init__(self, bus: Bus, node: NodeId) -> None:
        self._node, self._events = node, Publisher(bus)
        self.run = self._events.run

    def tell(self, order: Order, kind: TaskEventKind, text: str) -> None:
        """Queue an event, or drop it when too many wait."""
        at = clock.stamp()
        # A file name may hold bytes that are not UTF-8, and a context's notes name files.
        event = TaskEvent(task_id=order.task.id, kind=kind, at=at, text=storable(text), attempt=order.task.attempts)
        subject = subjects.fill(subjects.TASK_EVENT, task=event.task_id, kind=event.kind.value, by=self._node)
        self._events.tell(subject, encode(event))


async def make_worker(bus: Bus, settings: Settings, hosts: Sequence[ProjectsPart]) -> dict[str, Part]:
    """Return the parts that run this node's worker, of which the presences of its `hosts` will speak too.

    Raises SettingsError for arguments that cannot be split.
    """
    wanted = settings.worker
    try:
        arguments = attempt.split(wanted.claude_arguments)
    except ValueError as error:
        raise SettingsError(
            f"worker.claude_arguments cannot be split into arguments: {error}", field="worker.claude_arguments"
        ) from error
    if settings.node.id in subjects.RESERVED_WORKERS:
        raise SettingsError(
            f"the name {settings.node.id} is reserved, so it cannot be a worker's",
            remedy="set MEMBRIDGE_NODE_ID to another name",
            field="node.id",
        )
    root = wanted.root or settings.node.state_dir / "work"
    await threads.run(root.mkdir, mode=0o700, parents=True, exist_ok=True)
    found = await attempt.find_claude(wanted.claude)
    if found is None:
        log.warning("no claude program", path=wanted.claude, remedy="install Claude Code, or set MEMBRIDGE_CLAUDE")
    events = EventPublisher(bus, settings.node.id)
    agents = Path.home() / ".claude" / "agents"
    claude = Claude(
        binary=found[0] if found is not None else wanted.claude,
        arguments=arguments,
        sources=Sources(root=root, agents=agents, database=settings.project.database),
        max_output=wanted.max_output_bytes,
        tell=events.tell,
    )
    capabilities = Capabilities(
        claude_cli=found is not None, max_concurrency=wanted.max_concurrency, labels=_labels(wanted.labels)
    )

    async def described() -> NodePresence:
        said = [await host.presence.describe() for host in hosts]
        return msgspec.structs.replace(said[0], projects=[project for one in said for project in one.projects])

    presence_publisher = PresencePublisher(bus, settings.node.id, described)

    def changed() -> None:
        presence_publisher.touch()
        for host in hosts:
            host.presence.touch()

    unreturned = Unreturned(settings.node.state_dir / "unreturned.json")
    worker = Worker(bus, settings.node.id, capabilities, claude.attempt, changed=changed, unreturned=unreturned)
    for host in hosts:
        host.presence.worker = worker.presence
    return {"task events": events.run, "worker": worker.run, "worker presence": presence_publisher.run}


def _labels(text: str | None) -> list[str]:
    return [label for part in (text or "").split(",") if (label := part.strip())]
