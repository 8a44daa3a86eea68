"""A node's worker: accepts orders while it has room, renews their leases, reports, and hands tasks back when it stops.

It never decides about a task. When a lease is lost the attempt ends at once: another worker may have the task by then.
The caller passes in what an attempt does, as a coroutine function of an order.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import TypeVar

from membridge import __version__
from membridge.aio.backoff import Backoff
from membridge.aio.deadline import Deadline
from membridge.aio.lifecycle import Ready
from membridge.bus.connection import Bus
from membridge.bus.rpc import RpcClient
from membridge.bus.service import Call, Endpoint, ServiceIdentity, serve
from membridge.errors import MembridgeError, RemoteError
from membridge.system.logging import get_logger
from membridge.worker import report
from membridge.worker.unreturned import Unreturned
from schemas import subjects
from schemas.errors import AGAIN, TABLE, ErrorCode
from schemas.fields import MOST_NUMBER
from schemas.identity import NodeId
from schemas.leases import Accepted, LeaseClaim, Order, OrderAnswers, Orders, OutputPart, Report
from schemas.node import Empty
from schemas.results import Metrics, ResultStatus
from schemas.subjects import Operation
from schemas.wire import Wire, storable
from schemas.workers import Capabilities, WorkerPresence, WorkerStatus, WorkerStatusReply

Q = TypeVar("Q", bound=Wire)
R = TypeVar("R", bound=Wire)

log = get_logger("membridge.worker")

#: Answers to a result that no coordinator will ever accept.
UNACCEPTABLE = frozenset({ErrorCode.INVALID_REQUEST, ErrorCode.TOO_LARGE})

#: Seconds between two heartbeats of a lease.
HEARTBEAT = 10.0
#: Seconds that one request to the coordinator may take, and a report after many parts.
SAY, REPORT = 10.0, 60.0
#: Seconds that a stop leaves to reports under way, then to handing back; with `GRACE` less than `DRAIN`.
LAST_REPORT, GIVE_BACK = 3.0, 3.0
#: Seconds between two log lines that leases of an earlier process cannot be handed back.
RETURN_LATER = 60.0
#: Characters of an error message and of a session's name at most.
MESSAGE, SESSION = 4_000, 128
#: Seconds between two attempts to report, at most.
MOST_PAUSE = 5.0


@dataclass(frozen=True, slots=True)
class AttemptResult:
    """How an attempt ended. `session` is the program's session, for the next task of the context."""

    status: ResultStatus
    metrics: Metrics
    output: str | None = None
    error_message: str | None = None
    session: str | None = None


Attempt = Callable[[Order], Coroutine[None, None, AttemptResult]]


class Worker:
    """One node's worker. The node publishes its `presence`."""

    def __init__(
        self,
        bus: Bus,
        node: NodeId,
        capabilities: Capabilities,
        attempt: Attempt,
        *,
        changed: Callable[[], None],
        unreturned: Unreturned,
    ) -> None:
        self._bus, self._node, self._capabilities = bus, node, capabilities
        self._attempt, self._changed = attempt, changed
        self._unreturned, self._to_return = unreturned, dict[str, LeaseClaim]()
        self._client = RpcClient(bus)
        self._running: dict[str, tuple[Order, asyncio.Task[None]]] = {}
        #: Leases whose attempt runs; one that is being reported takes no room any more.
        self._busy: set[str] = set()
        self._open = False

    def presence(self) -> WorkerPresence:
        """Return the worker's presence, for the node to publish."""
        able = self._capabilities.claude_cli
        status = WorkerStatus.ONLINE if self._open and able else WorkerStatus.SYNCING if able else WorkerStatus.ERROR
        detail = "" if able else "there is no claude program"
        return WorkerPresence(
            capabilities=self._capabilities, status=status, active_leases=len(self._running), detail=detail
        )

    async def run(self, ready: Ready) -> None:
        """Accept orders until cancelled; then hand back the tasks that run."""
        identity = ServiceIdentity("membridge-worker", __version__, "runs LLM tasks", {"node": self._node})
        self._to_return = {claim.lease_id: claim for claim in await self._unreturned.read()}
        async with asyncio.TaskGroup() as group:
            if self._to_return:
                group.create_task(self._return_earlier(), name="leases of an earlier process")
            endpoints = [
                self._endpoint(subjects.RUN, lambda orders: self._take_all(group, orders)),
                self._endpoint(subjects.STOP, self._stop),
                self._endpoint(subjects.WORKER_STATUS, self._status),
            ]
            try:
                async with serve(self._bus, identity, endpoints):
                    self._open = True
                    self._changed()
                    ready()
                    try:
                        await asyncio.get_running_loop().create_future()
                    finally:
                        # At once: orders that wait are rejected while the service drains.
                        self._open = False
            finally:
                await self._hand_all_back()

    def _endpoint(self, operation: Operation[Q, R], answer: Callable[[Q], Awaitable[R]]) -> Endpoint:
        async def handle(request: Q, call: Call) -> R:
            del call
            return await answer(request)

        return Endpoint(operation, operation.at(worker=self._node), handle)

    async def _take_all(self, group: asyncio.TaskGroup, orders: Orders) -> OrderAnswers:
        return OrderAnswers(answers=[self._take(group, order) for order in orders.orders])

    def _take(self, group: asyncio.TaskGroup, order: Order) -> Accepted:
        if order.lease.id in self._running:
            return Accepted(accepted=True)
        if not self._open:
            return Accepted(accepted=False, reason="the worker is stopping")
        if not self._capabilities.claude_cli:
            return Accepted(accepted=False, reason="there is no claude program")
        if len(self._busy) >= self._capabilities.max_concurrency:
            return Accepted(accepted=False, reason=f"it already runs {len(self._busy)} tasks")
        self._busy.add(order.lease.id)
        task = group.create_task(self._work(order), name=f"task {order.task.id}")
        self._running[order.lease.id] = order, task
        task.add_done_callback(lambda _: self._forget(order.lease.id))
        self._changed()
        return Accepted(accepted=True)

    async def _stop(self, claim: LeaseClaim) -> Accepted:
        order, task = self._running.get(claim.lease_id, (None, None))
        if order is None or task is None:
            return Accepted(accepted=False, reason="the task does not run here")
        task.cancel()
        await asyncio.wait({task})
        return Accepted(accepted=True)

    async def _status(self, request: Empty) -> WorkerStatusReply:
        del request
        # Tasks still to be handed back are listed too: otherwise the coordinator would count an attempt for each.
        running = [order.task.id for order, _ in self._running.values()]
        running += [claim.task_id for claim in self._to_return.values()]
        return WorkerStatusReply(presence=self.presence(), running=running)

    def _forget(self, lease_id: str) -> None:
        self._running.pop(lease_id, None)
        self._busy.discard(lease_id)
        self._changed()

    async def _work(self, order: Order) -> None:
        """Run one attempt under its lease and report how it ended."""
        async with asyncio.TaskGroup() as group:
            beating = group.create_task(self._beat(order), name="heartbeats")
            attempt = group.create_task(self._attempted(order), name="attempt")
            await asyncio.wait({attempt, beating}, return_when=asyncio.FIRST_COMPLETED)
            if attempt.done():
                # The coordinator may send the next order as soon as it has this report.
                self._busy.discard(order.lease.id)
                await self._tell(order, attempt.result())
                beating.cancel()
            else:
                attempt.cancel()

    async def _attempted(self, order: Order) -> AttemptResult:
        """Make an attempt; an unexpected error ends the attempt, not the worker."""
        began = time.monotonic()
        try:
            return await self._attempt(order)
        except Exception as error:
            log.exception("attempt failed", task=order.task.id)
            metrics = Metrics(duration_ms=round(1_000 * (time.monotonic() - began)))
            message = f"the worker could not run the task: {type(error).__name__}: {error}"
            return AttemptResult(ResultStatus.ERROR, metrics, error_message=message)

    async def _tell(self, order: Order, outcome: AttemptResult) -> None:
        outcome = _kept(outcome)
        try:
            try:
                await self._report(order, outcome)
            except RemoteError as error:
                if error.code not in UNACCEPTABLE or outcome.status is ResultStatus.ERROR:
                    raise
                # Reported as an error, it ends the attempt now, and the task's reason says what was wrong.
                message = f"the coordinator refused the output: {error.message}"
                await self._report(order, AttemptResult(ResultStatus.ERROR, outcome.metrics, error_message=message))
        except RemoteError as error:
            log.info("result refused", detail=error.message)
        except MembridgeError as error:
            log.warning("result not told", reason=error.message)

    async def _beat(self, order: Order) -> None:
        """Renew the lease; return when it is lost."""
        every = min(HEARTBEAT, order.lease.ttl_seconds / 3)
        while True:
            await asyncio.sleep(every)
            try:
                await self._client.request(
                    subjects.HEARTBEAT, _claim(order), deadline=Deadline.after(SAY), worker=self._node
                )
            except RemoteError as error:
                if error.code is ErrorCode.LEASE_LOST:
                    log.info("lease of a task lost", detail=error.message)
                    return
            except MembridgeError as error:
                log.debug("heartbeat not heard", reason=error.message)

    async def _report(self, order: Order, outcome: AttemptResult) -> None:
        """Report the result until it is answered, for the lease's time to live at most."""
        deadline = Deadline.after(float(order.lease.ttl_seconds))

        async def part(one: OutputPart) -> None:
            await self._client.request(subjects.PART, one, deadline=deadline.sooner(SAY), worker=self._node)

        async def end(last: Report) -> None:
            # A coordinator that is killed never answers; only a large output may take long.
            wait = deadline.sooner(REPORT if last.parts else SAY)
            await self._client.request(subjects.REPORT, last, deadline=wait, worker=self._node)

        async def tell() -> None:
            await report.send(_report(order, outcome), part=part, end=end)

        await _insist(tell, deadline)

    async def _hand_all_back(self) -> None:
        """Stop all attempts and hand their tasks back together, after the reports under way."""
        running = list(self._running.values())
        for order, task in running:
            if order.lease.id in self._busy:
                task.cancel()
        if not running:
            return
        await asyncio.wait([task for _, task in running], timeout=LAST_REPORT)
        left = [(order, task) for order, task in running if task.cancelled() or not task.done()]
        for _, task in left:
            task.cancel()
        if not left:
            return
        await asyncio.wait([task for _, task in left])
        async with asyncio.TaskGroup() as group:
            for order, _ in left:
                group.create_task(self._give_back(order))
        if self._to_return:
            await self._unreturned.write(self._to_return.values())

    async def _give_back(self, order: Order) -> None:
        """Hand a task back; the coordinator may be restarting, and a repetition does no harm."""
        claim = LeaseClaim(
            lease_id=order.lease.id, task_id=order.task.id, worker_id=self._node, reason="its worker stopped"
        )
        if not await self._returned(claim, Deadline.after(GIVE_BACK)):
            self._to_return[claim.lease_id] = claim

    async def _return_earlier(self) -> None:
        """Hand back the leases that an earlier process could not, until a coordinator has answered."""
        for claim in list(self._to_return.values()):
            while not await self._returned(claim, Deadline.after(RETURN_LATER)):
                pass
            del self._to_return[claim.lease_id]
            await self._unreturned.write(self._to_return.values())
        # Publish presence: a coordinator takes a worker that hands back for one that stops.
        self._changed()

    async def _returned(self, claim: LeaseClaim, deadline: Deadline) -> bool:
        """Hand a lease back; return whether a coordinator has answered, accepting or refusing it."""

        async def tell() -> None:
            wait = deadline.sooner(GIVE_BACK / 2)
            await self._client.request(subjects.HAND_BACK, claim, deadline=wait, worker=self._node)

        try:
            await _insist(tell, deadline)
        except RemoteError as error:
            log.info("task not handed back", reason=error.message)
            return TABLE[error.code].retry not in AGAIN
        except MembridgeError as error:
            log.warning("task not handed back", reason=error.message)
            return False
        return True


async def _insist(tell: Callable[[], Awaitable[None]], deadline: Deadline) -> None:
    """Repeat a request until it is answered or the deadline comes; raise a final rejection, or the last failure."""
    backoff = Backoff(0.1, MOST_PAUSE)
    while True:
        try:
            await tell()
        except RemoteError as error:
            if TABLE[error.code].retry not in AGAIN:
                raise
            failure: MembridgeError = error
        except MembridgeError as error:
            failure = error
        else:
            return
        pause = backoff.failed()
        if deadline.remaining() < pause:
            raise failure
        await asyncio.sleep(pause)


def _claim(order: Order) -> LeaseClaim:
    return LeaseClaim(lease_id=order.lease.id, task_id=order.task.id, worker_id=order.lease.worker_id)


def _report(order: Order, outcome: AttemptResult) -> Report:
    return Report(
        lease_id=order.lease.id,
        task_id=order.task.id,
        worker_id=order.lease.worker_id,
        status=outcome.status,
        output=outcome.output,
        error_message=outcome.error_message,
        metrics=outcome.metrics,
        session=outcome.session,
    )


def _kept(outcome: AttemptResult) -> AttemptResult:
    """Return the result cut to what a coordinator can store: a program's output has no bounds."""
    tokens, message, session = outcome.metrics.tokens_used, outcome.error_message, outcome.session
    # A session's name that is cut would name another session.
    known = session is not None and len(session) <= SESSION and storable(session) == session
    return AttemptResult(
        outcome.status,
        Metrics(
            duration_ms=_number(outcome.metrics.duration_ms), tokens_used=None if tokens is None else _number(tokens)
        ),
        output=None if outcome.output is None else storable(outcome.output),
        error_message=None if message is None else storable(message)[:MESSAGE],
        session=session if known else None,
    )


def _number(value: int) -> int:
    return max(0, min(value, MOST_NUMBER))
