"""This node as a worker: what it is made of, where the settings say so.

The worker's events wait in a bounded queue and the newest are dropped when it is full: no program's chatter slows a
task or fills a server.
"""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from membridge import blocking
from membridge.bus.connection import Bus
from membridge.errors import MembridgeError, SettingsError
from membridge.lifecycle import Part, Ready
from membridge.logging import get_logger
from membridge.settings import Settings
from membridge.worker import attempt
from membridge.worker.attempt import Claude
from membridge.worker.context import Sources
from membridge.worker.worker import Worker
from schemas import subjects
from schemas.runtime import Capabilities, Order, TaskEvent, TaskEventKind
from schemas.wire import encode

log = get_logger("membridge.worker")

#: Events that wait to be told.
WAITING = 1_024


class Teller:
    """Tells what happens to tasks, in the order in which it happened."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._queue: asyncio.Queue[TaskEvent] = asyncio.Queue(WAITING)

    def tell(self, order: Order, kind: TaskEventKind, text: str) -> None:
        """Put an event into the queue, or drop it."""
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        event = TaskEvent(task_id=order.task.id, kind=kind, at=at, text=text, attempt=order.task.attempts)
        if not self._queue.full():
            self._queue.put_nowait(event)

    async def run(self, ready: Ready) -> None:
        """Tell until cancelled."""
        ready()
        while True:
            event = await self._queue.get()
            subject = subjects.fill(subjects.TASK_EVENT, task=event.task_id, kind=event.kind.value)
            try:
                await self._bus.publish(subject, encode(event))
            except MembridgeError as error:
                log.debug("event not told", reason=error.message)


async def make_worker(bus: Bus, settings: Settings, changed: Callable[[], None]) -> tuple[Worker, dict[str, Part]]:
    """Return this node's worker and the parts that run it. Raises SettingsError for arguments that cannot be split."""
    wanted = settings.executor
    try:
        arguments = attempt.split(wanted.claude_arguments)
    except ValueError as error:
        raise SettingsError(f"executor.claude_arguments: {error}", field="executor.claude_arguments") from error
    if settings.node.id in subjects.RESERVED_WORKERS:
        raise SettingsError(
            f"a worker cannot be called {settings.node.id}", remedy="set MEMBRIDGE_NODE_ID", field="node.id"
        )
    root = wanted.root or settings.node.state_dir / "work"
    await blocking.run(root.mkdir, mode=0o700, parents=True, exist_ok=True)
    found = await attempt.find_claude(wanted.claude)
    if found is None:
        log.warning("no claude program", path=wanted.claude, remedy="install Claude Code, or set MEMBRIDGE_CLAUDE")
    teller = Teller(bus)
    agents = Path.home() / ".claude" / "agents"
    claude = Claude(
        binary=found[0] if found is not None else wanted.claude,
        arguments=arguments,
        sources=Sources(root=root, agents=agents, database=settings.project.database),
        max_output=wanted.max_output_bytes,
        tell=teller.tell,
    )
    capabilities = Capabilities(
        claude_cli=found is not None, max_concurrency=wanted.max_concurrency, labels=_labels(wanted.labels)
    )
    worker = Worker(bus, settings.node.id, capabilities, claude.attempt, changed)
    return worker, {"task events": teller.run, "worker": worker.run}


def _labels(text: str | None) -> list[str]:
    return [label for part in (text or "").split(",") if (label := part.strip())]
