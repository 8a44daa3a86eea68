"""One change of many tasks: those of a list or of a filter, each as if it were asked for alone.

Each task is one event of the tenure, so a change that is cut off leaves whole tasks, and the same request again goes on
with the others.
"""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from membridge.aio.deadline import Deadline
from membridge.errors import InvalidRequestError, MembridgeError
from schemas.errors import ErrorCode
from schemas.task_changes import MOST_CHANGED, SHOWN, ChangeTasksReply, ChangeTasksRequest, TaskChange
from schemas.tasks import Task, TaskFilter
from services.coordinator.engine.machine import DEAD, FAILED, LIVE
from services.coordinator.runtime import Runtime
from services.coordinator.store.queries import Queries

if TYPE_CHECKING:
    from asyncio import Future

#: Tasks that are changed in one transaction, or few.
AT_ONCE = 250
#: Seconds before the deadline at which no further tasks are tried: the answer must arrive.
ANSWER = 5.0
#: What becomes of a task that was changed.
CHANGED = "changed"
#: The states in which a task can be changed.
POSSIBLE = {TaskChange.CANCEL: LIVE, TaskChange.REQUEUE: frozenset({FAILED, DEAD})}
#: Errors after which the other tasks would fail too.
OF_ALL = frozenset({ErrorCode.UNAVAILABLE.value, ErrorCode.RATE_LIMITED.value})


async def change_tasks(
    runtime: Runtime, queries: Queries, request: ChangeTasksRequest, *, actor: str, deadline: Deadline
) -> ChangeTasksReply:
    """Change tasks, or say which would change. Errors: InvalidRequestError without any condition, the database's."""
    found, ids = await preview(queries, request)
    if not request.apply:
        return found
    outcomes = Counter[str]()
    tried = 0
    for start in range(0, len(ids), AT_ONCE):
        some = ids[start : start + AT_ONCE]
        if deadline.remaining() < ANSWER or outcomes.keys() & OF_ALL:
            break
        outcomes.update(await change(runtime, request.change, some, reason=request.reason, actor=actor))
        tried += len(some)
    return ChangeTasksReply(
        applied=True,
        counts=found.counts,
        tasks=found.tasks,
        through=found.through,
        outcomes=dict(sorted(outcomes.items())),
        left=found.left + len(ids) - tried,
    )


async def preview(queries: Queries, request: ChangeTasksRequest) -> tuple[ChangeTasksReply, Sequence[str]]:
    """Return which tasks would change, and the ids of those that are to be tried."""
    possible = POSSIBLE[request.change]
    if request.ids:
        known = await queries.statuses(request.ids)
        counts = Counter(status.value for status in known.values() if status in possible)
        ids: Sequence[str] = list(dict.fromkeys(request.ids))
        matching = [name for name, status in known.items() if status in possible]
        left = 0
    else:
        wanted = request.filter or TaskFilter()
        if wanted == TaskFilter():
            raise InvalidRequestError(
                "neither ids nor a condition: this would change every task",
                remedy="name tasks in `ids`, or give `filter` at least one condition, such as `status`",
                field="filter",
            )
        counts = Counter(await queries.count(wanted, of=possible, through=request.through))
        ids = matching = await queries.ids(wanted, of=possible, through=request.through, limit=MOST_CHANGED)
        left = max(0, counts.total() - len(ids))
    reply = ChangeTasksReply(
        counts=dict(sorted(counts.items())),
        tasks=await queries.tasks_of(matching[:SHOWN]) if matching else [],
        through=matching[0] if matching else None,
        left=left,
    )
    return reply, ids


async def change(runtime: Runtime, wanted: TaskChange, ids: Sequence[str], *, reason: str, actor: str) -> Counter[str]:
    """Change some tasks; return how many came to which end."""
    outcomes = Counter[str]()
    answers: list[Future[Task]] = []
    for name in ids:
        try:
            if wanted is TaskChange.CANCEL:
                answers.append(runtime.cancel(name, reason=reason, actor=actor))
            else:
                answers.append(runtime.requeue(name, actor=actor))
        except MembridgeError as error:
            outcomes[error.code.value] += 1
    for answer in answers:
        try:
            await answer
        except MembridgeError as error:
            outcomes[error.code.value] += 1
        else:
            outcomes[CHANGED] += 1
    return outcomes
