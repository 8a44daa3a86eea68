"""`task submit --wait` and `task logs -f`: no line is lost or told twice, and what a task waits for is said."""

import asyncio
import uuid
from datetime import UTC, datetime
from pathlib import Path

import pytest

from membridge.bus.connection import Bus
from membridge.bus.service import Call, Endpoint, ServiceIdentity, serve
from membridge.cli.following import follow_task, submit_once
from membridge.errors import DeadlineExceededError, RemoteError
from membridge.worker.worker import AttemptResult
from schemas import subjects
from schemas.leases import Order
from schemas.task_events import TaskEvent, TaskEventKind
from schemas.tasks import Task, TaskSpec, TaskStatus
from schemas.wire import encode
from tests.fixtures.tasks import SOON, echo, place_of

LINES = 400


async def test_every_line_is_told_once_and_what_a_task_waits_for_is_said(
    bus: Bus, nats_url: str, tmp_path: Path
) -> None:
    told: list[TaskEvent] = []
    said: list[str] = []
    waiting, half = asyncio.Event(), asyncio.Event()

    def say(text: str) -> None:
        said.append(text)
        waiting.set()

    async def chatter(order: Order) -> AttemptResult:
        """Print many lines as fast as the bus takes them, and end at once."""
        subject = subjects.fill(subjects.TASK_EVENT, task=order.task.id, kind=TaskEventKind.STDERR.value, by="w1")
        for number in range(LINES):
            event = TaskEvent(
                task_id=order.task.id, kind=TaskEventKind.STDERR, at=datetime.now(UTC).isoformat(), text=str(number)
            )
            await bus.publish(subject, encode(event))
            if number == LINES // 2:
                half.set()
        return await echo(order)

    def lines(events: list[TaskEvent]) -> list[int]:
        return [int(event.text) for event in events if event.kind is TaskEventKind.STDERR]

    async with place_of(bus, nats_url, f"sqlite:///{tmp_path}/tasks.db", tmp_path) as place:
        await place.coordinator()
        task = await place.submit()
        async with asyncio.timeout(SOON), asyncio.TaskGroup() as group:
            following = group.create_task(follow_task(bus, task.id, told.append, say, look=0.2))
            await waiting.wait()
            assert said == ["waiting: no eligible worker because there is none"]
            await place.worker("w1", chatter)
            await half.wait()
            # Who begins in the middle is told the same.
            late: list[TaskEvent] = []
            also = group.create_task(follow_task(bus, task.id, late.append, say, look=0.2))
        assert following.result().status is TaskStatus.COMPLETED
        assert also.result().status is TaskStatus.COMPLETED
        for events in (told, late):
            assert lines(events) == list(range(LINES))
            statuses = [event.status for event in events if event.status]
            assert statuses == [TaskStatus.QUEUED, TaskStatus.LEASED, TaskStatus.RUNNING, TaskStatus.COMPLETED]
        # What happened in one transaction came in one message, so its steps have one place.
        assert [event.seq for event in told] == sorted(event.seq for event in told)
        assert len({(event.seq, event.status) for event in told}) == len(told)
        with pytest.raises(RemoteError, match="no task"):
            await follow_task(bus, "nothing", told.append, say)


@pytest.mark.parametrize("lost", [0, 1, 2, 3])
async def test_a_submission_whose_answer_is_lost_is_one_task(bus: Bus, lost: int) -> None:
    taken: dict[str | None, str] = {}
    tries: list[str | None] = []

    async def submit(spec: TaskSpec, call: Call) -> Task:
        """Take the task in, and lose the first answers, as a coordinator whose database stalls."""
        del call
        tries.append(spec.idempotency_key)
        task_id = taken.setdefault(spec.idempotency_key, str(uuid.uuid4()))
        if len(tries) <= lost:
            raise DeadlineExceededError("a transaction took too long")
        return Task(
            id=task_id, context_id=task_id, agent_slug="a", prompt="p", status=TaskStatus.QUEUED, created_at="",
            updated_at="",
        )  # fmt: skip

    endpoint = Endpoint(operation=subjects.SUBMIT, subject=subjects.SUBMIT.at(), handler=submit)
    async with serve(bus, ServiceIdentity("membridge-runtime", "0.1.0", "test"), [endpoint]):
        if lost < 3:
            found = await submit_once(bus, TaskSpec(agent_slug="a", prompt="p"))
            assert [found.id] == list(taken.values())
        else:
            with pytest.raises(DeadlineExceededError, match="may have been taken in"):
                await submit_once(bus, TaskSpec(agent_slug="a", prompt="p"))
    assert (len(tries), len(set(tries)), None in tries) == (min(lost + 1, 3), 1, False)
