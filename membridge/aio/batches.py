"""Asking for many things in one request: what comes while an answer is awaited goes together in the next one.

Nothing waits for others to come: while no request is under way, the first thing is asked for at once. So a lone caller
pays nothing, and many callers share what a request costs.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from membridge.aio.tasks import answerable
from membridge.errors import MembridgeError, OverloadedError
from membridge.system.logging import get_logger

Q = TypeVar("Q")
R = TypeVar("R")

log = get_logger("membridge.aio")

#: Things that wait to be asked for.
WAITING = 4_096


class Batches(Generic[Q, R]):
    """Answers by `ask`, which gets up to `most` things and returns an answer or an error for each, in their order.

    An error that it raises is the answer to all of them. `at_once` requests are under way at most; they run in `group`.
    """

    def __init__(
        self,
        group: asyncio.TaskGroup,
        ask: Callable[[Sequence[Q]], Awaitable[Sequence[R | MembridgeError]]],
        *,
        most: int,
        at_once: int,
    ) -> None:
        self._group, self._ask, self._most, self._at_once = group, ask, most, at_once
        self._waiting: deque[tuple[Q, asyncio.Future[R]]] = deque()
        self._running = 0

    def answer(self, thing: Q) -> "asyncio.Future[R]":
        """Return the future of an answer; a cancelled one is not asked for. Raises OverloadedError at the bound."""
        if len(self._waiting) >= WAITING:
            raise OverloadedError(f"{WAITING:,} requests wait already")
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((thing, future))
        if self._running < self._at_once:
            # It begins in the next turn of the loop: what else comes in this one goes with it.
            self._running += 1
            self._group.create_task(self._run(), name="batches").add_done_callback(self._ended)
        return future

    async def _run(self) -> None:
        batch: list[tuple[Q, asyncio.Future[R]]] = []
        try:
            while batch := self._next():
                await self._one(batch)
            # Before anybody else runs: what came between this and the end of the task would wait for ever.
            self._running -= 1
        finally:
            for _, future in batch:
                # Cut off: nobody will answer.
                future.cancel()

    def _ended(self, task: "asyncio.Task[None]") -> None:
        if task.cancelled() or task.exception() is not None:
            # The group ends, and nobody will ask for what waits.
            self._running -= 1
            while self._waiting:
                self._waiting.popleft()[1].cancel()

    def _next(self) -> list[tuple[Q, "asyncio.Future[R]"]]:
        batch: list[tuple[Q, asyncio.Future[R]]] = []
        while self._waiting and len(batch) < self._most:
            thing, future = self._waiting.popleft()
            if not future.done():
                batch.append((thing, future))
        return batch

    async def _one(self, batch: Sequence[tuple[Q, "asyncio.Future[R]"]]) -> None:
        answers: Sequence[R | MembridgeError]
        try:
            answers = await self._ask([thing for thing, _ in batch])
        except Exception as error:  # noqa: BLE001 - each caller is told, and the next batch goes on
            answers = [answerable(error, log)] * len(batch)
        for (_, future), answer in zip(batch, answers, strict=True):
            if future.done():
                continue
            if isinstance(answer, MembridgeError):
                future.set_exception(answer)
            else:
                future.set_result(answer)
