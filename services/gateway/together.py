"""Reading and submitting tasks for many callers: what comes while a coordinator answers goes together in one request.

Each read begins after its caller asked, so what a caller was told of before is what it sees. Long prompts go alone.
"""

import asyncio
from collections.abc import Sequence

from membridge.aio.batches import Batches
from membridge.aio.deadline import Deadline
from membridge.errors import MembridgeError, RemoteError
from schemas import subjects
from schemas.tasks import (
    MOST_TOGETHER,
    SHORT,
    ReadTasksRequest,
    SubmitOutcome,
    SubmitTasksRequest,
    Task,
    TaskRequest,
    TaskSpec,
)
from services.gateway.runtime import Runtime
from services.web.routes import Call

#: Requests that are under way at once. What comes while one is answered goes together: with two under way, each would
#: have half as much, and the second one cost what it saved.
AT_ONCE = 1
#: Seconds for the requests of several callers; each has a deadline of its own beside it.
WAIT = 15.0


class Together:
    """Tasks for all callers of a gateway; requests run in `group`."""

    def __init__(self, group: asyncio.TaskGroup, runtime: Runtime) -> None:
        self.runtime = runtime
        self._reads: Batches[tuple[str, Call], Task] = Batches(group, self._read, most=MOST_TOGETHER, at_once=AT_ONCE)
        self._submits: Batches[tuple[TaskSpec, Call], Task] = Batches(
            group, self._submit, most=MOST_TOGETHER, at_once=AT_ONCE
        )

    async def task(self, request: TaskRequest, call: Call) -> Task:
        """Return a task as it is now. Errors: those of `Runtime.ask`."""
        return await self._reads.answer((request.id, call))

    async def submit(self, spec: TaskSpec, call: Call) -> Task:
        """Submit a task. Errors: those of `Runtime.ask`."""
        if len(spec.prompt) > SHORT:
            return await self.runtime.ask(subjects.SUBMIT, spec, call)
        return await self._submits.answer((spec, call))

    async def _read(self, wanted: Sequence[tuple[str, Call]]) -> Sequence[Task | MembridgeError]:
        if len(wanted) == 1:
            return [await self._alone(*wanted[0])]
        ids = list(dict.fromkeys(task_id for task_id, _ in wanted))
        reply = await self.runtime.ask_within(
            subjects.READ_TASKS, ReadTasksRequest(ids=ids), wanted[0][1], deadline=Deadline.after(WAIT)
        )
        found = {task.id: task for task in reply.tasks}
        # What is missing does not exist, or is long.
        return [found.get(task_id) or await self._alone(task_id, call) for task_id, call in wanted]

    async def _alone(self, task_id: str, call: Call) -> Task | MembridgeError:
        try:
            return await self.runtime.ask_within(
                subjects.TASK, TaskRequest(id=task_id), call, deadline=Deadline.after(WAIT)
            )
        except MembridgeError as error:
            return error

    async def _submit(self, wanted: Sequence[tuple[TaskSpec, Call]]) -> Sequence[Task | MembridgeError]:
        by_actor: dict[str, list[int]] = {}
        for number, (_, call) in enumerate(wanted):
            by_actor.setdefault(call.identity.actor, []).append(number)
        answers: dict[int, Task | MembridgeError] = {}
        # The audit of the coordinator names who submitted a task, so each request is of one caller.
        for numbers in by_actor.values():
            answers |= zip(numbers, await self._of_one([wanted[number] for number in numbers]), strict=True)
        return [answers[number] for number in range(len(wanted))]

    async def _of_one(self, wanted: Sequence[tuple[TaskSpec, Call]]) -> Sequence[Task | MembridgeError]:
        call, deadline = wanted[0][1], Deadline.after(WAIT)
        try:
            if len(wanted) == 1:
                return [await self.runtime.ask_within(subjects.SUBMIT, wanted[0][0], call, deadline=deadline)]
            request = SubmitTasksRequest(tasks=[spec for spec, _ in wanted])
            reply = await self.runtime.ask_within(subjects.SUBMIT_TASKS, request, call, deadline=deadline)
        except MembridgeError as error:
            return [error] * len(wanted)
        return [_answer(outcome) for outcome in reply.tasks]


def _answer(outcome: SubmitOutcome) -> Task | MembridgeError:
    if outcome.task is not None:
        return outcome.task
    return RemoteError(outcome.error) if outcome.error is not None else MembridgeError("no answer")
