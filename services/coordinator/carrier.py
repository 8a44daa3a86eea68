"""Carries out the effects that are not rows: answers, events, orders, entries in KV, timers.

What takes time runs in the background of the tenure. A failure there is logged: the database alone decides, and the
worker's next word, the expiry of its lease or the next tenure makes up for it.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from typing import Any

from msgspec.structs import replace

from membridge.errors import MembridgeError
from membridge.system.logging import get_logger
from schemas.leases import Accepted, Lease, LeaseClaim, Leased, Order
from schemas.task_events import TaskEvent, TaskStep
from schemas.tasks import Task
from schemas.wire import Wire
from services.coordinator.engine.effects import (
    Arm,
    Disarm,
    Effect,
    Hold,
    NewTask,
    Release,
    Reply,
    ReplyOrder,
    ReplyTask,
    Send,
    Stop,
    Tell,
)
from services.coordinator.engine.events import Event, NotTaken, Taken, Unreadable
from services.coordinator.engine.machine import TaskState
from services.coordinator.engine.step import claim_of
from services.coordinator.lease_entries import LeaseEntries
from services.coordinator.outputs import Outputs
from services.coordinator.port import Port
from services.coordinator.shell import Answer, fail
from services.coordinator.store.queries import Queries

log = get_logger("membridge.coordinator")

#: Tasks just submitted whose prompts are kept in memory.
REMEMBERED = 512
#: Characters of prompts that one message of orders has at most, unless it has one order only.
TOGETHER = 128 << 10


class Carrier:
    """Carries out effects of one tenure; what it learns by that comes back as events."""

    def __init__(
        self,
        group: asyncio.TaskGroup,
        port: Port,
        queries: Queries,
        outputs: Outputs,
        post: Callable[[Event], None],
    ) -> None:
        self._group, self._port, self._queries, self._outputs, self._post = group, port, queries, outputs, post
        self._loop = asyncio.get_running_loop()
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._entries = LeaseEntries(port, self._in_background)
        self._submitted: OrderedDict[str, Task] = OrderedDict()
        self._orders: dict[str, list[Send]] = {}
        #: What happened to each task in this transaction: one message for each task.
        self._news: dict[str, list[TaskEvent]] = {}
        self._how: dict[type, Callable[[Any, Answer | None], None]] = {
            Tell: lambda effect, _: self._news.setdefault(effect.event.task_id, []).append(effect.event),
            Arm: lambda effect, _: self._arm(effect),
            Disarm: lambda effect, _: self._disarm(effect.name),
            Hold: lambda effect, _: self._entries.hold(effect.lease),
            Release: lambda effect, _: self._release(effect.lease),
            Reply: lambda effect, answer: _resolve(answer, effect.value),
            ReplyTask: lambda effect, answer: self._answer_later(answer, partial(queries.task, effect.task_id)),
            ReplyOrder: lambda effect, answer: self._answer_later(
                answer, partial(self._leased, effect.task, effect.lease)
            ),
            Send: lambda effect, _: self._orders.setdefault(effect.lease.worker_id, []).append(effect),
            Stop: lambda effect, _: self._in_background(partial(port.stop, effect.claim)),
            NewTask: lambda effect, _: self._remember(effect.task),
        }

    def carry(self, effect: Effect | None, answer: Answer | None) -> None:
        """Carry out an effect; without one, send the orders and the events that have gathered."""
        if effect is None:
            self._send_gathered()
            self._tell_gathered()
        elif (carry_out := self._how.get(type(effect))) is not None:
            carry_out(effect, answer)

    def _arm(self, effect: Arm) -> None:
        self._disarm(effect.name)
        self._timers[effect.name] = self._loop.call_at(effect.at, self._fire, effect.name, effect.event)

    def _release(self, lease: Lease) -> None:
        self._outputs.forget(lease.id)
        self._entries.release(lease)

    def _send_gathered(self) -> None:
        for worker_id, sends in self._orders.items():
            for together in _portions(sends, self._submitted):
                self._in_background(partial(self._send, worker_id, together))
        self._orders.clear()

    def _tell_gathered(self) -> None:
        for events in self._news.values():
            *before, last = events
            self._port.announce(replace(last, passed=[_step(event) for event in before]) if before else last)
        self._news.clear()

    def close(self) -> None:
        """Stop all timers."""
        for handle in self._timers.values():
            handle.cancel()
        self._timers.clear()
        self._entries.close()

    def _fire(self, name: str, event: Event) -> None:
        self._timers.pop(name, None)
        self._post(event)

    def _disarm(self, name: str) -> None:
        if (handle := self._timers.pop(name, None)) is not None:
            handle.cancel()

    def _remember(self, task: Task) -> None:
        """Keep a task that was just submitted, so that its prompt is not read from the database again."""
        self._submitted[task.id] = task
        if len(self._submitted) > REMEMBERED:
            self._submitted.popitem(last=False)

    async def _send(self, worker_id: str, sends: Sequence[Send]) -> None:
        """Send orders, and let their answers come back as events."""
        orders = list[Order]()
        for send in sends:
            try:
                orders.append(await self._order(send.task, send.lease, send.session))
            except MembridgeError as error:
                self._post(Unreadable(claim_of(send.lease), error.message))
        if not orders:
            return
        try:
            answers = await self._port.send(worker_id, orders)
        except MembridgeError as error:
            for order in orders:
                # The worker may have taken the task although its answer was lost.
                self._post(NotTaken(claim_of(order.lease), error.message, unknown=True))
            return
        for order, answer in zip(orders, answers, strict=True):
            self._post(_of(answer, claim_of(order.lease)))

    async def _order(self, task: TaskState, lease: Lease, session: str | None) -> Order:
        whole = self._submitted.pop(task.id, None) or await self._queries.task(task.id)
        whole = replace(
            whole, status=task.status, lease_id=lease.id, worker_id=lease.worker_id, attempts=task.attempts,
            interruptions=task.interruptions,
        )  # fmt: skip
        return Order(task=whole, lease=lease, resumes=session)

    async def _leased(self, task: TaskState, lease: Lease) -> Leased:
        return Leased(order=await self._order(task, lease, None))

    def _answer_later(self, answer: Answer | None, reading: Callable[[], Awaitable[Wire]]) -> None:
        async def read() -> None:
            try:
                _resolve(answer, await reading())
            except MembridgeError as error:
                fail(answer, error)

        self._in_background(read)

    def _in_background(self, work: Callable[[], Coroutine[None, None, None]]) -> None:
        running = _run(work)
        try:
            self._group.create_task(running)
        except RuntimeError:
            # The tenure ends: its group takes no more tasks, and the next tenure reads from the database what to do.
            running.close()


def _step(event: TaskEvent) -> TaskStep:
    return TaskStep(status=event.status, at=event.at, text=event.text, attempt=event.attempt)


def _resolve(answer: Answer | None, value: Wire) -> None:
    if answer is not None and not answer.done():
        answer.set_result(value)


def _of(answer: Accepted, claim: LeaseClaim) -> Event:
    return Taken(claim) if answer.accepted else NotTaken(claim, answer.reason or "it gave no reason")


def _portions(sends: Sequence[Send], submitted: "OrderedDict[str, Task]") -> list[list[Send]]:
    """Return the orders in portions that one message holds; one whose prompt is not at hand goes alone."""
    portions, room = list[list[Send]](), 0
    for send in sends:
        task = submitted.get(send.task.id)
        size = len(task.prompt) if task is not None else TOGETHER
        if not portions or size > room:
            portions.append([])
            room = TOGETHER
        portions[-1].append(send)
        room -= size
    return portions


async def _run(work: Callable[[], Coroutine[None, None, None]]) -> None:
    try:
        await work()
    except MembridgeError as error:
        log.debug("background task failed", reason=error.message)
