"""What happens to a task in one transaction is told in one message, and read as the steps that it was."""

import asyncio
import random
from pathlib import Path

from membridge.aio.deadline import Deadline
from schemas.task_events import TaskEvent
from schemas.tasks import TaskSpec, TaskStatus
from services.coordinator.engine.state import Limits
from services.coordinator.store.migrations import MIGRATIONS
from services.database.engine import open_engine, parse_url
from tests.integration.coordinator.histories import AcceptingPort, History

QUEUED, LEASED, RUNNING, DEAD = TaskStatus.QUEUED, TaskStatus.LEASED, TaskStatus.RUNNING, TaskStatus.DEAD


class Told(AcceptingPort):
    """A port that keeps what is told."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[TaskEvent] = []
        self.more = asyncio.Event()

    def announce(self, event: TaskEvent) -> None:
        self.told.append(event)
        self.more.set()

    async def until(self, number: int) -> list[TaskEvent]:
        """Wait until so many messages were sent; return them."""
        while len(self.told) < number:
            self.more.clear()
            await self.more.wait()
        return self.told


async def test_steps_of_one_transaction_are_one_message_in_their_order(database_url: str, tmp_path: Path) -> None:
    port, spec = Told(), TaskSpec(context_id="c", agent_slug="x", prompt="p")
    async with (
        open_engine(parse_url(database_url, tmp_path / "x"), MIGRATIONS, deadline=Deadline.after(30.0)) as engine,
        asyncio.timeout(60.0),
        asyncio.TaskGroup() as group,
    ):
        history = History(engine, port, group, random.Random(1), Limits())
        runtime = await history.begin()
        task = await runtime.submit(spec, actor="test")
        both, running = await port.until(2)
        assert ([step.status for step in both.passed], both.status) == ([QUEUED], LEASED)
        assert [(one.status, one.attempt, one.passed) for one in both.steps()] == [(QUEUED, 0, []), (LEASED, 1, [])]
        assert {one.task_id for one in both.steps()} == {task.id}
        assert (running.status, running.passed, running.steps()) == (RUNNING, [], [running])
        # Ended, revived and given out again at once; another task of the same transaction has a message of its own.
        await runtime.cancel(task.id, reason="enough", actor="test")
        await port.until(3)
        revived = runtime.requeue(task.id, actor="test")
        other = await runtime.submit(spec, actor="test")
        await revived
        messages = (await port.until(6))[3:]
        steps = {one.task_id: [step.status for step in one.steps()] for one in reversed(messages)}
        assert (port.told[2].status, port.told[2].text) == (DEAD, "enough")
        assert steps == {task.id: [QUEUED, LEASED], other.id: [QUEUED]}
        await history.kill()
