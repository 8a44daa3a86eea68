"""Tasks that are read or submitted in one request, each as if it were asked for alone."""

import asyncio

import msgspec

from membridge.aio.tasks import answerable
from membridge.errors import MembridgeError
from membridge.system.logging import get_logger
from schemas.tasks import (
    SHORT,
    ReadTasksReply,
    ReadTasksRequest,
    SubmitOutcome,
    SubmitTasksReply,
    SubmitTasksRequest,
    Task,
    TaskSpec,
    TaskStatus,
)
from services.coordinator.engine.placing import explain
from services.coordinator.engine.state import State
from services.coordinator.runtime import Runtime
from services.coordinator.store.queries import Queries

log = get_logger("membridge.coordinator")


async def read_tasks(runtime: Runtime, queries: Queries, request: ReadTasksRequest) -> ReadTasksReply:
    """Return the tasks of short prompts, each with what it waits for."""
    found = await queries.short_tasks(request.ids, longest=SHORT)
    state = await runtime.settled()
    return ReadTasksReply(tasks=[explained(state, task) for task in found])


def explained(state: State, task: Task) -> Task:
    """Return a task of the database with what it waits for."""
    live = state.tasks.get(task.id)
    if live is None or live.status is not TaskStatus.QUEUED:
        return task
    reasons = (live.reason, explain(state, live, asyncio.get_running_loop().time()))
    return msgspec.structs.replace(task, reason="; ".join(reason for reason in reasons if reason))


async def submit_tasks(runtime: Runtime, request: SubmitTasksRequest, actor: str) -> SubmitTasksReply:
    """Submit tasks; each is durable or refused when this returns."""
    waiting = [_submitted(runtime, spec, actor) for spec in request.tasks]
    if futures := {one for one in waiting if not isinstance(one, MembridgeError)}:
        await asyncio.wait(futures)
    return SubmitTasksReply(tasks=[_outcome(one) for one in waiting])


def _submitted(runtime: Runtime, spec: TaskSpec, actor: str) -> "asyncio.Future[Task] | MembridgeError":
    try:
        return runtime.submit(spec, actor=actor)
    except MembridgeError as error:
        return error


def _outcome(one: "asyncio.Future[Task] | MembridgeError") -> SubmitOutcome:
    error = one if isinstance(one, MembridgeError) else one.exception()
    if error is None and not isinstance(one, MembridgeError):
        return SubmitOutcome(task=one.result())
    said = answerable(error or MembridgeError("internal error"), log)
    return SubmitOutcome(error=said.reply(""))
