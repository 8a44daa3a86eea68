"""Submit a task once, and follow it: its past events, then new ones, and what it waits for."""

import asyncio
import secrets
from collections.abc import Callable
from contextlib import aclosing

from msgspec.structs import replace

from membridge.bus.connection import Bus
from membridge.bus.feed import News, Page, Position, follow
from membridge.cli.asking import of_runtime
from membridge.errors import DeadlineExceededError, MembridgeError
from schemas import subjects
from schemas.errors import AGAIN, Retry
from schemas.task_events import EventsRequest, TaskEvent
from schemas.tasks import Task, TaskRequest, TaskSpec, TaskStatus

#: States from which a task comes back by a person's hand alone.
ENDED = frozenset({TaskStatus.COMPLETED, TaskStatus.DEAD})
#: Times that a task is submitted whose answer does not come.
TRIES = 3
#: Seconds between two reads of a task that publishes no events.
LOOK = 2.0
#: Seconds that the word of a task's end may come after the end.
LAST_WORD = 5.0

Tell = Callable[[TaskEvent], None]
Say = Callable[[str], None]


class _Follower:
    """One task as this command knows it."""

    def __init__(self, bus: Bus, task_id: str, tell: Tell, say: Say) -> None:
        self._bus, self._id, self._tell, self._say = bus, task_id, tell, say
        self._last: TaskStatus | None = None
        self._said = ""
        self._ended_at: float | None = None

    async def read(self, start: int) -> Page[TaskEvent]:
        """Return a page of the task's events."""
        reply = await of_runtime(self._bus, subjects.EVENTS, EventsRequest(id=self._id, start=start))
        items = [(event.seq, event) for event in reply.events]
        return Page(items, Position(reply.resume, reply.life), reply.first, reply.next_start is not None)

    async def take(self, news: News[TaskEvent]) -> Task | None:
        """Pass events on; return the task once it ended and every event was passed on."""
        for _, event in news.items:
            self._tell(event)
            self._last = event.status or self._last
        if news.reset:
            self._explain("some earlier lines may be gone: the stream keeps the newest of all tasks")
        if news.trouble is not None:
            self._explain(f"waiting: {news.trouble.message}")
            return None
        if news.items and self._last not in ENDED:
            return None
        return await self._look()

    async def _look(self) -> Task | None:
        try:
            task = await of_runtime(self._bus, subjects.TASK, TaskRequest(id=self._id))
        except MembridgeError as error:
            if error.mapping.retry not in AGAIN:
                raise
            self._explain(f"waiting: {error.message}")
            return None
        if task.status in ENDED:
            now = asyncio.get_running_loop().time()
            self._ended_at = now if self._ended_at is None else self._ended_at
            # The database has the end before the event is published, and the event may be lost.
            return task if self._last is task.status or now - self._ended_at > LAST_WORD else None
        self._ended_at = None
        if task.status is TaskStatus.QUEUED and task.reason:
            self._explain(f"waiting: {task.reason}")
        return None

    def _explain(self, text: str) -> None:
        if text != self._said:
            self._said = text
            self._say(text)


async def submit_once(bus: Bus, spec: TaskSpec) -> Task:
    """Submit a task once, even if answers are lost: every try has the same idempotency key.

    Raises DeadlineExceededError, or what a coordinator said that ran out of time, when no try was answered.
    """
    keyed = replace(spec, idempotency_key=spec.idempotency_key or f"cli-{secrets.token_hex(16)}")
    for left in reversed(range(TRIES)):
        try:
            return await of_runtime(bus, subjects.SUBMIT, keyed)
        except MembridgeError as error:
            if error.mapping.retry is not Retry.IF_IDEMPOTENT:
                raise
            if not left:
                message = f"{error.message}; the task may have been taken in"
                raise DeadlineExceededError(message, remedy="look for it with `membridge task list`") from error
    raise AssertionError  # pragma: no cover - the last try returns or raises


async def follow_task(bus: Bus, task_id: str, tell: Tell, say: Say, *, look: float = LOOK) -> Task:
    """Pass each event of a task on once, from the first to its end; return the task. `say` gets what it waits for.

    Errors: NotFoundError. A connection or coordinator that is away is waited for.
    """
    follower = _Follower(bus, task_id, tell, say)
    async with aclosing(follow(bus, subjects.of_task(task_id), follower.read, look=look)) as feed:
        async for news in feed:
            ended = await follower.take(news)
            if ended is not None:
                return ended
    raise AssertionError  # pragma: no cover - a feed has no end
